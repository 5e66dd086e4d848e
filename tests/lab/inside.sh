#!/bin/bash
# The inside of tests/lab/lab.sh: root, in fresh mount, pid and network namespaces; ends as the lab's user.
set -euo pipefail
umask 022    # what the user must read is made by root here, whatever the caller has
home=$(getent passwd "$LAB_USER" | cut -d: -f6)
group=$(id -g "$LAB_USER")
state=$(mktemp -d)
mount -t tmpfs -o mode=755 lab "$state"

# --- what the kernel shows ---
mount -t proc proc /proc
mount -t sysfs sysfs /sys                          # the one outside shows the other network namespace
mount -t cgroup2 none /sys/fs/cgroup               # crun refuses the v1 and hybrid trees of some machines
mount -t tmpfs -o mode=1777 shm /dev/shm           # Podman's lock file is one per uid: keep the machine's out of it
mount -t tmpfs -o "mode=700,uid=$LAB_UID,gid=$group" run "/run/user/$LAB_UID"

# --- the network ---
ip link set lo up
ip link add lab0 type veth peer name lab1
sysctl -qw net.ipv4.ip_unprivileged_port_start=0 net.ipv4.ping_group_range="0 2147483647"
if [[ -d /proc/sys/net/ipv6 ]]; then sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0; fi
ip link set lab0 up; ip link set lab1 up
ip address add 192.0.2.2/24 dev lab0
ip route add default via 192.0.2.1 dev lab0
for range in 192.88.99.0/24 198.51.100.0/24 203.0.113.0/24 10.77.0.0/16 192.168.77.0/24 169.254.169.254/32; do
  ip route add local "$range" dev lo
done
if [[ -d /proc/sys/net/ipv6 ]]; then
  ip -6 address add 2001:db8:0:2::2/64 dev lab0 nodad
  ip -6 route add default via 2001:db8:0:2::1 dev lab0
  for range in 2001:2::/48 2001:db8:1::/48 fd00:7e57::/32; do ip -6 route add local "$range" dev lo; done
fi
printf 'nameserver 198.51.100.53\noptions timeout:1 attempts:2\n' >"$state/resolv.conf"
mount --bind "$state/resolv.conf" "$(realpath /etc/resolv.conf)"

# --- the sources, at their own path ---
closed() {  # the topmost directory above the checkout that the user may not enter
  local path="" part
  IFS=/ read -ra parts <<<"${1#/}"
  for part in "${parts[@]}"; do
    path+=/$part
    if ! setpriv --reuid="$LAB_UID" --regid="$group" --init-groups test -x "$path"; then echo "$path"; return; fi
  done
  echo "$1"
}
if [[ $LAB_REACH != open ]]; then
  mkdir "$state/checkout"
  if [[ $LAB_REACH == bind ]]; then
    mount --rbind "$LAB_CHECKOUT" "$state/checkout"
  else
    mount -t tmpfs -o mode=755 checkout "$state/checkout"
    tar -C "$LAB_CHECKOUT" --exclude=./.git -cf - . | tar -C "$state/checkout" -xf -
    chmod -R a+rX "$state/checkout"
  fi
  top=$(closed "$LAB_CHECKOUT")
  if [[ $top != "$LAB_CHECKOUT" ]]; then
    mount -t tmpfs -o mode=755 cover "$top"
    mkdir -p "$LAB_CHECKOUT"
  fi
  mount --move "$state/checkout" "$LAB_CHECKOUT"
fi
mount --make-rshared /

conf=$home/.config/containers/containers.conf
if [[ ! -e $conf ]]; then
  install -d -o "$LAB_USER" -g "$group" "$home/.config" "$home/.config/containers"
  install -m 644 -o "$LAB_USER" -g "$group" "$LAB_CHECKOUT/tests/lab/containers.conf" "$conf"
fi

cd "$LAB_CWD" 2>/dev/null || cd "$LAB_CHECKOUT"
# pid 1 reaps orphans at once; some machines' own pid 1 takes seconds
exec catatonit -- setpriv --reuid="$LAB_UID" --regid="$group" --init-groups env -i \
  HOME="$home" USER="$LAB_USER" LOGNAME="$LAB_USER" SHELL=/bin/bash LANG=C.UTF-8 TERM="${TERM-dumb}" TEROK_LAB=1 ${CI:+CI="$CI"} \
  PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin XDG_RUNTIME_DIR="/run/user/$LAB_UID" \
  /bin/bash -c 'ulimit -c 0; exec "$@"' lab "$@"
