#!/bin/sh
# Creates the virtual environment $1 with $PYTHON, or with the first Python 3.11 to 3.13 that works.
set -eu
works() { "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; }

for python in ${PYTHON:-python3.12 python3.11 python3.13 python3 python}; do
    if works "$python"; then
        echo "creating $1 with $("$python" --version)"
        exec "$python" -m venv "$1"
    fi
done
echo "error: expected Python 3.11, 3.12 or 3.13 with the venv module (Debian: apt-get install python3-venv)." \
    "Received: ${PYTHON:-none on PATH}; name one with PYTHON=/path/to/python3.12" >&2
exit 1
