#!/bin/bash
# tests/lab/suite.sh PYTHON TEST...: run tests with this interpreter in as many labs as the machine has processors.
#
# Every lab has a network, processes and mounts of its own, so tests never meet: ports, names and leaks are a lab's. One
# pytest hands the tests out (pytest-xdist), and each of its workers is a Python in a lab. JOBS=1: one lab and no
# worker, with the output as it comes (-s, --pdb). Options for pytest: PYTEST_ADDOPTS.
set -euo pipefail
lab=$(realpath "$(dirname "$0")/lab.sh")
python=$1; shift
jobs=${JOBS-$(nproc)}
options=(-q -p no:cacheprovider --durations=15)
files=$(find "$@" -name 'test_*.py' 2>/dev/null | wc -l)
if [[ $files -lt $jobs ]]; then jobs=1; fi

if [[ $jobs -gt 1 && $* == tests ]]; then
  cat <<PLAN
terok's tests, in $jobs labs at a time (JOBS=$jobs):
  tests/unit     no root, no Podman
  tests/netns    firewall and resolver in network namespaces of their own
  tests/podman   real rootless Podman
About twelve minutes on two quiet processors. Nothing leaves the machine; outside of /tmp it stays as it is, but for
the lab's user (tests/lab/lab.sh says what it changes). Not among them: make test-selinux, make test-debian13.
PLAN
fi
if [[ $jobs == 1 ]]; then exec bash "$lab" -- "$python" -m pytest "${options[@]}" "$@"; fi
# what takes longest comes first, so that both labs end together
exec "$python" -m pytest "${options[@]}" --dist worksteal --tx "$jobs*popen//python=bash $lab -- $python" "$@"
