#!/bin/bash
# tests/selinux/run.sh WHEEL: the product in an enforcing Debian 13 guest, under emulation (as root; `make test-selinux`).
#
# The guest's base is kept in $TEROK_SELINUX_CACHE (default: /var/tmp/terok-selinux). With TEROK_SELINUX_ENFORCING=0
# the guest boots permissive, and the test must fail.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${TEROK_SELINUX_CACHE:-/var/tmp/terok-selinux}
enforcing=${TEROK_SELINUX_ENFORCING:-1}
[[ $(id -u) == 0 ]] || { echo "test-selinux builds a guest's root file system, which needs root." >&2; exit 1; }

missing=()
declare -A package=(
  [qemu-system-x86_64]=qemu-system-x86 [mmdebstrap]=mmdebstrap [cpio]=cpio [mke2fs]=e2fsprogs [nc.openbsd]=netcat-openbsd
  [busybox]=busybox-static [xz]=xz-utils
)
for program in "${!package[@]}"; do command -v "$program" >/dev/null || missing+=("${package[$program]}"); done
if [[ -n ${missing-} ]]; then
  echo "installing: ${missing[*]}" >&2
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

exec 9>"$cache.lock"
flock 9
bash "$here/build.sh" "$cache" "$1"
bash "$here/policies.sh" "$cache/root/opt/test/policies"
boot() { # NAME KERNEL-ARGUMENT...
  local log=$cache/$1.log attempt
  for attempt in 1 2; do
    echo "[${SECONDS}s] booting $1: ${*:2}" >&2
    bash "$here/boot.sh" "$cache" "$log" "${@:2}" terok.test=1 || echo "guest $1 was killed" >&2
    grep -aq 'Kernel panic' "$log" || break    # the emulation's doing, not ours
  done
  grep -a '^TEROK' "$log" | tr -d '\r' | sed 's/^TEROK //'
  grep -aq '^TEROK RESULT PASS' "$log"
}
# one guest for each of the machine's processors: in emulation a guest has but one
boot root security=selinux "enforcing=$enforcing" terok.users=0 & root=$!
boot user security=selinux "enforcing=$enforcing" terok.users=1000 & user=$!
failed=0
wait $root || failed=1
wait $user || failed=1
if [[ $failed == 0 ]]; then
  boot apparmor security=apparmor & apparmor=$!
  boot installer security=selinux "enforcing=$enforcing" terok.users=0 terok.stage=installing & installer=$!
  wait $apparmor || failed=1
  wait $installer || failed=1
fi
echo "[${SECONDS}s] $([[ $failed == 0 ]] && echo passed || echo FAILED)" >&2
exit $failed
