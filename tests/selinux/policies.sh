#!/bin/bash
# tests/selinux/policies.sh DIR: what the module adds to Debian's policy, compared as text, must be these lines.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
diff <(diff "$1/plain.cil" "$1/module.cil" | grep '^[<>]') "$here/policies.expected" ||
  { echo "FAIL the policy module opens something else than it should (left: what it does)" >&2; exit 1; }
echo "PASS the policy module adds its $(wc -l <"$here/policies.expected") lines to the policy and changes no other"
