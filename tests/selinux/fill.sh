#!/bin/bash
# tests/selinux/fill.sh ROOT WHEEL: put the wheel, the tests and the compiled policies into the guest's root.
#
# The policies are compiled here, since semodule takes a minute in the emulated guest: `plain` is Debian's own, `module`
# has ours, `stale` an older one of ours, `refusing` denies what own-label sockets need, `refusing-module` has both.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
checkout=$(cd "$here/../.." && pwd)
root=$1 wheel=$2
test=$root/opt/test
rm -rf "$test"
mkdir -p "$test/policies"

cp "$wheel" "$root/tmp/"
chroot "$root" /opt/terok/bin/pip install --quiet --no-index --no-deps --force-reinstall --root-user-action=ignore \
  "/tmp/$(basename "$wheel")" 2>&1 | grep -v ^WARNING: || true
rm -f "$root/tmp/$(basename "$wheel")"
cp "$here"/guest/* "$test/"
PYTHONPATH=$checkout python3 -c '
import sys
from tests.lab import image
open(sys.argv[1], "wb").write(image.build(("nc.openbsd",)))' "$test/image.tar"

store=$root/etc/selinux/default
policy=$(cd "$store/policy" && ls policy.*)
[[ -e $root/var/plain.policy ]] || cp "$store/policy/$policy" "$root/var/plain.policy"
cp "$root/var/plain.policy" "$test/policies/plain"
installed=$(cd "$root" && echo opt/terok/lib/python3*/site-packages/terok_host/selinux)

chroot "$root" bash -euo pipefail -s -- "/$installed/terok_socket.te" "/etc/selinux/default/policy/$policy" <<'P'
te=$1 policy=$2
cd /opt/test/policies
checkmodule -M -m -o terok_socket.mod "$te" >/dev/null
semodule_package -o terok_socket.pp -m terok_socket.mod
quietly() { "$@" 2>/tmp/errors || { cat /tmp/errors >&2; exit 1; }; }
for each in terok_socket refusing; do semodule -n -r "$each" 2>/dev/null || true; done
mkdir stale.d && sed 's/terok_socket_v[0-9]*_t/terok_socket_v0_t/' "$te" >stale.d/terok_socket.te
checkmodule -M -m -o stale.d/terok_socket.mod stale.d/terok_socket.te >/dev/null
semodule_package -o stale.d/terok_socket.pp -m stale.d/terok_socket.mod
quietly semodule -n -i stale.d/terok_socket.pp && cp "$policy" stale
quietly semodule -n -i terok_socket.pp && cp "$policy" module
quietly semodule -n -i /opt/test/refusing.cil && cp "$policy" refusing-module
quietly semodule -n -r terok_socket && cp "$policy" refusing
quietly semodule -n -r refusing
for each in plain module; do checkpolicy -M -b -C -o "$each.cil" "$each" >/dev/null 2>&1; done
P
cp "$test/policies/plain" "$store/policy/$policy"
chroot "$root" /sbin/setfiles -F /etc/selinux/default/contexts/files/file_contexts / 2>/dev/null
