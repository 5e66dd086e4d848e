#!/bin/bash
# tests/lab/lab.sh [-u USER] [--] COMMAND...: run COMMAND where rootless Podman works and no packet leaves the machine.
#
# As root (a bare machine, CI): COMMAND runs as the ordinary USER (default: terok; created when missing) with private
# mount, pid and network namespaces. All that it leaves running ends with it. Outside of those namespaces this changes
# only: the user with its subuid range, the modes of /dev/net/tun and /dev/fuse, and an empty /run/user/UID.
# As anybody else: through `sudo -n` when that works; otherwise COMMAND runs as it is, with the caller's own Podman.
#
# The network in there (tests bind these addresses freely, ports below 1024 too; nothing else exists):
#   192.88.99.0/24 2001:2::/48                         "the internet": every address is this machine (ranges that nobody
#                                                      routes and that no filter takes for private)
#   198.51.100.0/24 203.0.113.0/24 2001:db8:1::/48     the same; DNS rebinding protection drops answers with these
#   10.77.0.0/16 192.168.77.0/24 169.254.169.254 fd00:7e57::/32   the same, for what a firewall treats as private
#   192.0.2.2/24, 2001:db8:0:2::2/64 on lab0, with the default routes that slirp4netns and pasta look for
#   /etc/resolv.conf names 198.51.100.53, where a test starts its own DNS server (nothing listens there by itself)
set -euo pipefail
umask 022    # what the user must read is made by root here, whatever the caller has
user=terok
if [[ ${1-} == -u ]]; then user=$2; shift 2; fi
if [[ ${1-} == -- ]]; then shift; fi
[[ $# -gt 0 ]] || { echo "usage: tests/lab/lab.sh [-u USER] [--] COMMAND..." >&2; exit 2; }
if [[ -n ${TEROK_LAB-} ]]; then exec "$@"; fi
if [[ $(id -u) != 0 ]]; then
  # the caller's own storage and pause process belong to the caller's namespaces: the lab has a user of its own
  if sudo -n true 2>/dev/null; then exec sudo -n -- bash "$(realpath "$0")" -u "$user" -- "$@"; fi
  exec "$@"
fi

missing=()
for program in podman crun nft dnsmasq slirp4netns newuidmap catatonit ip setpriv; do
  command -v "$program" >/dev/null || missing+=("$program")
done
if [[ ${#missing[@]} -gt 0 ]]; then
  echo "The lab needs: ${missing[*]}. On Debian: apt-get install --no-install-recommends podman crun nftables dnsmasq-base slirp4netns passt uidmap catatonit iproute2 util-linux" >&2
  exit 1
fi

exec 9>/run/terok-lab.lock
flock 9    # two labs at the same time must not pick one subuid range
id "$user" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$user"
if ! grep -q "^$user:" /etc/subuid; then
  first=$(awk -F: 'BEGIN {next_free = 100000} {end = $2 + $3; if (end > next_free) next_free = end} END {print next_free}' /etc/subuid)
  usermod --add-subuids "$first-$((first + 65535))" --add-subgids "$first-$((first + 65535))" "$user"
fi
exec 9>&-
uid=$(id -u "$user")
chmod 666 /dev/net/tun /dev/fuse 2>/dev/null || true
mkdir -p "/run/user/$uid"

checkout=$(realpath "$(dirname "$0")/../..")
as_user=(setpriv --reuid="$uid" --regid="$(id -g "$user")" --init-groups)
reach=open
if "${as_user[@]}" test -r "$checkout/pyproject.toml"; then
  :
elif [[ -z $(find "$checkout" \( -name .git -o -name .venv \) -prune -o ! -perm -o=r ! -type l -print -quit) ]]; then
  reach=bind    # only a directory above it is closed
else
  reach=copy    # cloned under a tight umask
fi

export LAB_USER=$user LAB_UID=$uid LAB_CHECKOUT=$checkout LAB_REACH=$reach LAB_CWD=$PWD
exec unshare --mount --pid --net --fork --kill-child --propagation private -- \
  /bin/bash "$checkout/tests/lab/inside.sh" "$@"
