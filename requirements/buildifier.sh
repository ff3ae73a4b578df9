#!/bin/sh
# Lints BUILD and MODULE.bazel with buildifier; npm brings its binary.
set -eu
if ! command -v npm >/dev/null 2>&1; then
    echo "lint: SKIPPED buildifier (BUILD, MODULE.bazel): it comes through npm, which is not on PATH" >&2
    exit 0
fi
[ -x node_modules/.bin/buildifier ] || npm install --no-save --no-audit --no-fund --silent "@bazel/buildifier@8.2.1"
node_modules/.bin/buildifier --mode=check --lint=warn BUILD MODULE.bazel python_rules.bzl
echo "lint: buildifier passed"
