#!/bin/bash
# tests/selinux/build.sh CACHE WHEEL: build the guest's disk, kernel and initial RAM disk in CACHE (as root).
#
# A Debian 13 with its own SELinux policy, podman and this wheel in /opt/terok. The base (packages, dependencies) is
# kept in CACHE between runs and built again when this file, the dependencies or the distribution's package list change.
set -euo pipefail
umask 022
here=$(cd "$(dirname "$0")" && pwd)
cache=$1 wheel=$(realpath "$2")
root=$cache/root
packages=(
  systemd systemd-sysv dbus dbus-user-session libpam-systemd udev kmod login procps iproute2 busybox-static auditd
  podman crun conmon netavark passt slirp4netns uidmap nftables dnsmasq-base catatonit
  python3 python3-venv selinux-policy-default policycoreutils checkpolicy semodule-utils
  apparmor apparmor-profiles
)
masked=(
  apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer dpkg-db-backup.timer
  podman-auto-update.timer podman-restart.service podman.socket podman.service netavark-dhcp-proxy.socket
  netavark-dhcp-proxy.service systemd-networkd.service systemd-networkd.socket systemd-timesyncd.service
  systemd-pstore.service ldconfig.service systemd-journal-catalog-update.service systemd-update-done.service
  systemd-sysusers.service systemd-binfmt.service modprobe@drm.service modprobe@efi_pstore.service
  sys-kernel-debug.mount sys-kernel-tracing.mount systemd-hwdb-update.service getty@tty1.service
  apparmor.service podman-clean-transient.service netavark-firewalld-reload.service
)

step() { echo "[${SECONDS}s] $*" >&2; }

dependencies() { # what the wheel needs, one a line
  python3 - "$wheel" <<'P'
import email, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel:
    name = next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
    meta = email.message_from_bytes(wheel.read(name))
print("\n".join(sorted(need for need in meta.get_all("Requires-Dist") or () if "extra ==" not in need)))
P
}

build_base() {
  local mirror suites=(trixie main)
  mirror=$(sed -n 's/^URIs: *\(\S*\).*/\1/p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -1)
  if [[ -z $mirror ]]; then
    echo "No package source found in /etc/apt/sources.list.d/debian.sources: this builds on Debian 12 or 13." >&2
    return 1
  fi
  rm -rf "$root" "$cache/wheels"
  mmdebstrap --quiet --mode=root --variant=minbase --aptopt='APT::Install-Recommends "false"' \
    --aptopt='Acquire::Languages "none"' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --include="$(IFS=,; echo "${packages[*]}")" \
    --customize-hook="bash $here/build.sh --kernel \"\$1\"" \
    trixie "$root" "deb $mirror ${suites[*]}"
  step "base: $(du -sm "$root" | cut -f1) MB"
  python3 -m pip --disable-pip-version-check download --quiet --dest "$cache/wheels" --only-binary=:all: \
    --python-version 3.13 --implementation cp --abi cp313 --abi abi3 --abi none \
    --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 --platform manylinux_2_34_x86_64 \
    $(dependencies | tr -d ' ')
  mkdir -p "$root/opt"
  chroot "$root" python3 -m venv /opt/terok
  mkdir -p "$root/tmp/wheels" && cp "$cache"/wheels/*.whl "$root/tmp/wheels/"
  chroot "$root" env -u PIP_FIND_LINKS /opt/terok/bin/pip install --quiet --no-index --find-links /tmp/wheels $(dependencies | tr -d ' ')
  rm -rf "$root/tmp/wheels"
  step "dependencies installed"
}

kernel() { # unpack the cloud kernel's modules and image: its installation would build an initial RAM disk nobody uses
  local package
  package=$(chroot "$1" apt-cache depends linux-image-cloud-amd64 | sed -n 's/ *Depends: //p' | head -1)
  chroot "$1" sh -c "cd /tmp && apt-get -q download $package" >/dev/null
  dpkg-deb -x "$1"/tmp/linux-image*.deb "$1"
  rm -f "$1"/tmp/linux-image*.deb
  chroot "$1" depmod "$(ls "$1/usr/lib/modules")"
}

configure() {
  local unit
  sed -i 's/^SELINUX=.*/SELINUX=enforcing/' "$root/etc/selinux/config"
  echo lab >"$root/etc/hostname"
  echo '127.0.0.1 localhost lab' >"$root/etc/hosts"
  echo '/dev/vda / ext4 defaults,noatime 0 0' >"$root/etc/fstab"
  echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
  echo 'nameserver 127.0.0.1' >"$root/etc/resolv.conf"
  chroot "$root" passwd -qd root
  chroot "$root" useradd -m -s /bin/bash lab
  grep -q ^lab: "$root/etc/subuid" || { echo lab:100000:65536 >>"$root/etc/subuid"; echo lab:100000:65536 >>"$root/etc/subgid"; }
  mkdir -p "$root/var/lib/systemd/linger" "$root/var/lib/containers"
  touch "$root/var/lib/systemd/linger/lab"
  local getty=$root/etc/systemd/system/serial-getty@ttyS0.service.d
  mkdir -p "$getty"
  printf '[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --noclear %%I 115200 vt220\n' >"$getty/login.conf"
  cat >>"$root/root/.profile" <<'P'
if grep -q terok.test=1 /proc/cmdline && [ "$(tty)" = /dev/ttyS0 ]; then bash /opt/test/guest.sh; systemctl poweroff; fi
P
  chroot "$root" systemctl set-default -q multi-user.target
  for unit in "${masked[@]}"; do ln -sf /dev/null "$root/etc/systemd/system/$unit"; done
  printf 'install vmw_vsock_vmci_transport /bin/true\nblacklist vmw_vmci\n' >"$root/etc/modprobe.d/test.conf"
  printf 'tun\nnf_tables\nnf_conntrack\noverlay\nveth\n' >"$root/etc/modules-load.d/test.conf"
}

initial_ram_disk() {
  local work module
  work=$(mktemp -d)
  mkdir -p "$work"/{bin,dev,proc,mnt}
  cp "$root/usr/bin/busybox" "$work/bin/"
  ln -s busybox "$work/bin/sh"
  module=$(find "$root/usr/lib/modules" -name 'virtio_blk.ko*')
  xz -dc "$module" >"$work/virtio_blk.ko"
  cat >"$work/init" <<'I'
#!/bin/sh
b=/bin/busybox
$b mount -t devtmpfs d /dev
$b insmod /virtio_blk.ko
while [ ! -b /dev/vda ]; do $b sleep 0.05; done
$b mount -t ext4 -o rw,noatime /dev/vda /mnt
$b mount -o move /dev /mnt/dev
exec $b switch_root /mnt /sbin/init
I
  chmod +x "$work/init"
  (cd "$work" && find . | cpio -o -H newc 2>/dev/null | gzip -9) >"$cache/initrd.gz"
  rm -rf "$work"
  cp "$root/boot/vmlinuz-$(ls "$root/usr/lib/modules")" "$cache/vmlinuz"
}

if [[ $1 == --kernel ]]; then kernel "$2"; exit; fi
mkdir -p "$cache"
key=$( { cat "$here/build.sh"; dependencies; } | sha256sum | cut -c1-16)
if [[ $(cat "$cache/key" 2>/dev/null) != "$key" ]]; then
  rm -f "$cache/key"
  build_base
  configure
  initial_ram_disk
  echo "$key" >"$cache/key"
fi
bash "$here/fill.sh" "$root" "$wheel"
rm -f "$cache/disk.img"
mke2fs -q -t ext4 -d "$root" "$cache/disk.img" 1500M
step "disk: $(du -m "$cache/disk.img" | cut -f1) MB used"
