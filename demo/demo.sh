#!/bin/bash
# demo/demo.sh: what `make demo` runs. Installs what is missing, builds .venv, and runs demo/demo.py.
#
# As root, or with sudo that needs no password: in tests/lab's private namespaces, as an ordinary user, so that the
# stand-in upstreams can have addresses of their own and no packet leaves the machine. As anybody else: with the
# caller's own rootless Podman (its storage and home kept apart), stand-ins on the loopback interface.
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf '\033[1m%s\033[0m\n' "$1"; }
[[ -t 1 ]] || say() { printf '%s\n' "$1"; }

say "== what this machine needs"
bash tests/lab/packages.sh demo
echo "packages: all there"
make --no-print-directory bytecode
echo "program:  .venv/bin/terok"
exec bash tests/lab/lab.sh -- "$PWD/.venv/bin/python" -m demo.demo
