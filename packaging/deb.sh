#!/bin/bash
# packaging/deb.sh DIR: build DIR/terok-host_VERSION_all.deb, the same bytes for the same commit.
#
# Python's build backend makes a wheel of a copy of the sources, and its files go where Debian's Python looks; PYTHON is
# an interpreter that has what `make dev` installs. The dependencies are Debian's own packages, at least as new as
# pyproject.toml says. Nothing of a checkout's user, umask or time gets into the package.
set -euo pipefail
umask 022
export TZ=UTC LC_ALL=C.UTF-8
[[ $# == 1 ]] || { echo "usage: packaging/deb.sh DIR" >&2; exit 2; }
command -v dpkg-deb >/dev/null || { echo "packaging/deb.sh needs dpkg-deb, which is part of Debian's dpkg." >&2; exit 1; }
target=$(realpath -m "$1")
cd "$(dirname "$0")/.."
python=$(realpath -s "${PYTHON:-.venv/bin/python}")
export PYTHONDONTWRITEBYTECODE=1 SOURCE_DATE_EPOCH
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

floors=(supervisor hookbin sidecars runtime selinux)
mkdir "$work/source" "$work/built" "$work/tree"
tar -cf - --exclude=__pycache__ "${floors[@]}" pyproject.toml setup.py README.md LICENSE | tar -C "$work/source" --no-same-owner -xf -
# the copy has no git: its stamp is that of this tree, as in a source archive
version=$("$python" - "$work/source" <<'PY'
import sys, tomllib, types
with open("pyproject.toml", "rb") as file:
    number = tomllib.load(file)["project"]["version"]
package = sys.modules["terok_host"] = types.ModuleType("terok_host")
package.__path__ = ["."]
from terok_host.runtime.host import release
with open(f"{sys.argv[1]}/runtime/host/{release.STAMP}", "w") as file:
    file.write(release.stamp(number))
print(number)
PY
)
pip() { "$python" -m pip --quiet --disable-pip-version-check "$@"; }
pip wheel --no-index --no-deps --no-build-isolation --wheel-dir "$work" "$work/source"
pip install --no-index --no-deps --no-compile --target "$work/built" "$work"/*.whl

tree=$work/tree
packages=$tree/usr/lib/python3/dist-packages
doc=$tree/usr/share/doc/terok-host
mkdir -p "$packages" "$tree/usr/bin" "$tree/usr/share/zsh/vendor-completions" "$doc" "$tree/DEBIAN"
rm -rf "$work"/built/*.dist-info/{RECORD,REQUESTED,INSTALLER,direct_url.json,licenses}
mv "$work/built/terok_host" "$work"/built/*.dist-info "$packages/"
cp -R "$work/built/share" "$tree/usr/"
gzip -9n "$tree"/usr/share/man/man1/*.1
for path in "$tree"/usr/share/zsh/site-functions/_*; do  # Debian's zsh looks in a directory of its own
  ln -s "../site-functions/${path##*/}" "$tree/usr/share/zsh/vendor-completions/${path##*/}"
done
cp README.md "$doc/"
gzip -9n <CHANGELOG.md >"$doc/changelog.gz"
cat >"$doc/copyright" <<C
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: terok-host

Files: *
Copyright: the authors of terok
License: Apache-2.0
 On Debian systems, the text of the Apache License, version 2.0, is in /usr/share/common-licenses/Apache-2.0.
C

"$python" - "$tree" "$version" "${DEBFULLNAME:-terok} <${DEBEMAIL:-root@localhost}>" <<'PY'
import os, re, sys, tomllib

tree, version, maintainer = sys.argv[1:]
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
for name, place in project["scripts"].items():
    module, function = place.split(":")
    with open(f"{tree}/usr/bin/{name}", "w") as script:
        script.write(f"#!/usr/bin/python3\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    os.chmod(script.name, 0o755)

DEBIAN = {"python-daemon": "python3-daemon", "PyYAML": "python3-yaml"}
LEFT_OUT = {"textual"}  # Debian 13's is too old; `terok top` alone needs it, and says so
depends = [f"python3 ({project['requires-python'].replace('>=', '>= ')})"]
for need in project["dependencies"]:
    name, minimum = re.fullmatch(r"([\w-]+)>=([\d.]+)", need).groups()
    if name not in LEFT_OUT:
        depends.append(f"{DEBIAN.get(name, 'python3-' + name)} (>= {minimum})")
depends += ["podman", "crun", "nftables", "dnsmasq-base", "uidmap"]
size = sum(os.lstat(os.path.join(at, name)).st_size for at, _, names in os.walk(f"{tree}/usr") for name in names)
control = f"""Package: terok-host
Version: {version}
Architecture: all
Maintainer: {maintainer}
Installed-Size: {size // 1024}
Depends: {", ".join(depends)}
Recommends: passt | slirp4netns, git, openssh-client
Section: admin
Priority: optional
Description: {project["description"].rstrip(".")}
 Every user runs "terok setup" once, and "terok uninstall" before the package is removed.
 .
 "terok top" needs textual 6, which Debian does not have: "terok top --json", "terok ps" and
 "terok pending" show the same without it.
"""
SCRIPTS = {
    "postinst": 'if [ "$1" = configure ]; then py3compile -p terok-host; fi',
    "prerm": "py3clean -p terok-host",
}
with open(f"{tree}/DEBIAN/control", "w") as file:
    file.write(control)
for name, line in SCRIPTS.items():
    with open(f"{tree}/DEBIAN/{name}", "w") as file:
        file.write(f"#!/bin/sh\nset -e\n{line}\n")
    os.chmod(file.name, 0o755)
PY
(cd "$tree" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums)
chmod -R u+rwX,go+rX,go-w "$tree"
find "$tree" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

mkdir -p "$target"
dpkg-deb --root-owner-group -Zxz --build "$tree" "$target/terok-host_${version}_all.deb" >/dev/null
echo "$target/terok-host_${version}_all.deb"
