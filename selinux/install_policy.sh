#!/bin/bash
# install_policy.sh [--check|--show|--remove]: the SELinux policy module that lets containers connect to terok's sockets.
#
#   (nothing)  compile terok_socket.te, which lies beside this script, and load it (as root)
#   --check    say whether the running policy has it (any user); exit 0: yes, 1: no, 3: an older version, 4: no SELinux
#   --show     print the rules that would be installed, and change nothing (any user)
#   --remove   take the module out of the policy again (as root)
#
# It writes nowhere but a temporary directory and, through semodule(8), the policy store. It is harmless when repeated.
set -euo pipefail
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL=C
umask 077

name=terok_socket
fs=/sys/fs/selinux

fail() { printf 'install_policy.sh: %s\n' "$@" >&2; exit 2; }

# The kernel takes a context that is written to this file when the running policy knows it, and refuses it otherwise.
known() { (printf 'system_u:object_r:%s:s0' "$1" >"$fs/context") 2>/dev/null; }

trusted() { # PATH: refuse what a user other than root and the caller could have put there or could still change
  local owner mode
  [[ ! -L $1 ]] || fail "$1 is a symbolic link; run the script from where it really is."
  read -r owner mode < <(stat -c '%u %a' -- "$1")
  [[ $owner == 0 || $owner == "${SUDO_UID:-$(id -u)}" ]] || fail "$1 belongs to uid $owner, neither to root nor to you."
  (( (8#$mode & 8#022) == 0 )) || fail "$1 can be written by others: chmod go-w '$1'"
}

root_only() { [[ $(id -u) == 0 ]] || fail "this needs root: sudo bash $script ${1-}"; }

needs() {
  local program
  for program; do
    command -v "$program" >/dev/null || fail "$program is missing." \
      "Fedora, RHEL: dnf install checkpolicy policycoreutils" \
      "Debian: apt-get install checkpolicy semodule-utils policycoreutils"
  done
}

installed() { semodule -l | grep -qE "^$name([[:space:]]|\$)"; }

check() {
  [[ -e $fs/enforce ]] || { echo "no SELinux on this host"; return 4; }
  if known "$marker"; then echo "$name: installed"
  elif known "${name}_t"; then echo "$name: another version is installed; install this one with: sudo bash $script"; return 3
  else echo "$name: not installed; install it with: sudo bash $script"; return 1
  fi
}

install() {
  root_only
  [[ -e $fs/enforce ]] || fail "no SELinux on this host, so no policy to add to."
  needs checkmodule semodule_package semodule
  if known "$marker" && installed; then echo "$name: already installed"; return; fi
  checkmodule -M -m -o "$work/$name.mod" "$work/$name.te" >/dev/null
  semodule_package -o "$work/$name.pp" -m "$work/$name.mod"
  semodule -i "$work/$name.pp"
  known "$marker" || fail "semodule took the module, but the running policy does not have it (see: semodule -l, dmesg)."
  echo "$name: installed (remove it with: sudo semodule -r $name)"
}

remove() {
  root_only --remove
  needs semodule
  if installed; then semodule -r "$name"; echo "$name: removed"; else echo "$name: was not installed"; fi
}

[[ $# -le 1 ]] || fail "one option at most: --check, --show or --remove"
here=$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
script=$here/$(basename -- "${BASH_SOURCE[0]}")
for path in "$here" "${BASH_SOURCE[0]}" "$here/$name.te"; do trusted "$path"; done

# What was checked, shown and compiled is one copy that no other user can change in between.
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
cat -- "$here/$name.te" >"$work/$name.te"
marker=$(sed -n "s/^typealias ${name}_t alias \([a-z0-9_]*\);\$/\1/p" "$work/$name.te")
[[ -n $marker ]] || fail "$here/$name.te names no version (typealias)."

case ${1-} in
  "") install ;;
  --check) check ;;
  --show) cat -- "$work/$name.te" ;;
  --remove) remove ;;
  *) fail "unknown option $1; there are --check, --show and --remove" ;;
esac
