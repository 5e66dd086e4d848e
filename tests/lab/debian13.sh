#!/bin/bash
# tests/lab/debian13.sh [TEST... | COMMAND...]: the built wheel and the tests inside Debian 13 (podman 5, pasta,
# Python 3.13), as root.
#
# The system lies in a directory (TEROK_DEBIAN13, default /var/tmp/terok-debian13; about 700 MB), made once by mmdebstrap from
# this machine's own package source. The checkout is copied into it, and the wheel is installed in a virtual environment
# there, so nothing of this machine's Python takes part; the kernel is this machine's. Default: every test, as `make test`
# runs them. COMMAND runs in the copy, in one lab. Everything runs in namespaces of its own and ends with the command.
set -euo pipefail
[[ $(id -u) == 0 ]] || { echo "tests/lab/debian13.sh needs root, to make a system in a directory." >&2; exit 1; }
cd "$(dirname "$0")/../.."
root=${TEROK_DEBIAN13:-/var/tmp/terok-debian13}
checkout=$PWD
source_=/opt/terok

build() {
  command -v mmdebstrap >/dev/null || apt-get install -y -qq --no-install-recommends mmdebstrap >/dev/null
  local mirror keys=() key
  mirror=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/*.sources 2>/dev/null | head -1)
  [[ -n $mirror ]] || mirror=$(awk '$1 == "deb" {for (i = 2; i <= NF; i++) if ($i ~ /^http/) {print $i; exit}}' /etc/apt/sources.list)
  for key in /usr/share/keyrings/debian-archive-*.gpg; do keys+=(--keyring="$key"); done
  rm -rf "$root.new"
  echo "debian13: making $root (once; about a minute)" >&2
  # Java's packages link their manual pages below a directory that the exclusion leaves out
  mmdebstrap -q --variant=minbase --mode=root "${keys[@]}" --setup-hook='mkdir -p "$1/usr/share/man/man1"' --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --include="$wanted,dnsutils" trixie "$root.new" "deb $mirror trixie main"
  echo "$wanted" >"$root.new/.packages"
  install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$root.new/etc/ssl/certs/ca-certificates.crt"
  rm -rf "$root"
  mv "$root.new" "$root"
}

wanted=$(bash tests/lab/packages.sh list)
[[ $(cat "$root/.packages" 2>/dev/null) == "$wanted" ]] || build

# the package index that this machine's pip uses serves the other Python too
for conf in /etc/pip.conf "$HOME/.config/pip/pip.conf" "$HOME/.pip/pip.conf"; do
  if [[ -e $conf ]]; then install -D -m 644 "$conf" "$root/etc/pip.conf"; fi
done
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
rm -rf "${root:?}$source_"
mkdir -p "$root$source_"
tar -cf - --exclude=./.git --exclude=./.venv --exclude=./build --exclude=./dist --exclude=__pycache__ . | tar -C "$root$source_" -xf -
chmod -R a+rX "$root$source_"

export root source_
case ${1-tests} in
  tests*) run=(bash tests/lab/suite.sh /opt/venv/bin/python "${@:-tests}");;
  *) run=(bash tests/lab/lab.sh -- "$@");;
esac
exec unshare --mount --pid --fork --kill-child --propagation private -- /bin/bash -ec '
  mount --bind "$root" "$root"
  mount -t proc proc "$root/proc"; mount -t sysfs sysfs "$root/sys"; mount --rbind /dev "$root/dev"
  mount -t tmpfs -o mode=1777 tmp "$root/tmp"; mount -t tmpfs -o mode=755 run "$root/run"
  cd "$root"; mkdir -p .old; pivot_root . .old; umount -l /.old
  cd "$source_"
  export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  [[ -x /opt/venv/bin/python ]] || python3 -m venv /opt/venv
  rm -rf dist
  pip() { /opt/venv/bin/python -m pip --quiet --disable-pip-version-check "$@" 2>/tmp/pip.log || { cat /tmp/pip.log >&2; exit 1; }; }
  pip wheel --no-deps --wheel-dir dist .
  pip uninstall --yes terok-host
  pip install "$(echo dist/*.whl)[dev]"
  exec "$@"' debian13 "${run[@]}"
