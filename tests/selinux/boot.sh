#!/bin/bash
# tests/selinux/boot.sh CACHE LOG [KERNEL ARGUMENT...]: boot the guest that build.sh made, without KVM and network.
#
# What it prints to its serial line goes to LOG; nothing that it writes to its disk is kept.
set -euo pipefail
cache=$1 log=$2
shift 2
# One processor: with two, the kernel's patching of its own code now and then trips over QEMU's translated copy of it
# ("Oops: int3"). cmpxchg16b takes a slow path in emulation: the guest is told that there is none.
exec timeout --kill-after 10 "${TEROK_SELINUX_TIMEOUT:-900}" qemu-system-x86_64 \
  -accel tcg -cpu max,-cx16 -m 2048 -smp 1 -no-reboot -nodefaults -display none \
  -kernel "$cache/vmlinuz" -initrd "$cache/initrd.gz" \
  -drive "if=none,id=disk,file=$cache/disk.img,format=raw,cache=unsafe,snapshot=on" \
  -device virtio-blk-pci,drive=disk -device virtio-rng-pci -serial "${TEROK_SELINUX_SERIAL:-file:$log}" \
  -append "console=ttyS0 net.ifnames=0 panic=-1 mitigations=off quiet loglevel=4 audit=1 \
audit_backlog_limit=8192 systemd.show_status=0 $*"
