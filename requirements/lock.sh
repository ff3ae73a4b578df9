#!/bin/sh
# Writes requirements/*.lock from pyproject.toml, for every supported Python and platform at once.
set -eu
"$PY" -m pip install --quiet uv
compile() {
    "$PY" -m uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
        --no-emit-index-url --no-emit-find-links --extra video --extra web "$@" pyproject.toml
}
# dev.lock first: what all extras together allow is what run.lock takes, so that a package has one version.
compile --extra beam --extra serving --extra breakout --extra dev --output-file requirements/dev.lock
compile --constraint requirements/dev.lock --output-file requirements/run.lock
