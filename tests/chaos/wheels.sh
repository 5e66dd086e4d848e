#!/bin/bash
# tests/chaos/wheels.sh: the previous release's wheel and this one's, in build/chaos/old and build/chaos/new.
# Previous: the last tag (PREVIOUS=COMMIT takes another); in a repository without tags, sixty commits ago.
set -euo pipefail
cd "$(dirname "$0")/../.."
previous=${PREVIOUS:-$(git describe --tags --abbrev=0 2>/dev/null || git rev-parse HEAD~60)}
python=$PWD/.venv/bin/python
rm -rf build/chaos build/lib
mkdir -p build/chaos/tree
git archive "$previous" | tar -C build/chaos/tree -xf -
wheel() { (cd "$1" && "$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$2" .); }
wheel build/chaos/tree "$PWD/build/chaos/old"
wheel . "$PWD/build/chaos/new"
rm -rf build/chaos/tree build/lib
git rev-parse --short "$previous" >build/chaos/previous
chmod -R a+rX build/chaos
