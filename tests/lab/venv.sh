#!/bin/bash
# tests/lab/venv.sh DIR FLOOR...: a virtual environment with every dependency and the program, run from the sources.
#
# The floors stand in the import package terok_host only through symlinks in build/typed, and one line in a .pth
# file puts that directory on the path. An editable install's import finder would double the start time instead.
set -euo pipefail
dir=$1; shift
python=${PYTHON:-/usr/bin/python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "terok needs Python 3.11 or newer; $python is older. Set PYTHON=/path/to/python3." >&2; exit 1; }
"$python" -c 'import venv, ensurepip' 2>/dev/null || { echo "Python's venv module is missing. On Debian: apt-get install python3-venv" >&2; exit 1; }
umask 022
[[ -x $dir/bin/python ]] || "$python" -m venv "$dir"
mkdir -p build/typed/terok_host
for floor in "$@"; do ln -sfn "../../../$floor" "build/typed/terok_host/$floor"; done
readarray -t needs < <("$dir/bin/python" - <<'P'
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
print("\n".join(project["dependencies"] + project["optional-dependencies"]["dev"]))
P
)
"$dir/bin/python" -m pip install --quiet --disable-pip-version-check "${needs[@]}"
site=$("$dir/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "$PWD/build/typed" >"$site/terok_host.pth"
"$dir/bin/python" - "$dir" <<'P'
import os, sys, tomllib
for name, target in tomllib.load(open("pyproject.toml", "rb"))["project"]["scripts"].items():
    module, function = target.split(":")
    path = os.path.join(sys.argv[1], "bin", name)
    with open(path, "w") as script:
        script.write(f"#!{os.path.abspath(sys.argv[1])}/bin/python\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    os.chmod(path, 0o755)
P
