#!/bin/bash
# tests/lab/packages.sh demo|test|bench|chaos: install the Debian packages that are missing for it (as root, or through sudo).
# Without either, print the command and fail. On another distribution: look for the programs instead.
set -euo pipefail
demo=(podman crun nftables dnsmasq-base slirp4netns passt uidmap netavark aardvark-dns iptables catatonit busybox-static
  openssh-client curl git iproute2 procps make ca-certificates python3 python3-venv)
tests=("${demo[@]}" openssh-server conntrack strace nginx-light gh wrk zsh fish gnutls-bin wget nodejs default-jdk-headless)
programs=(podman crun nft dnsmasq slirp4netns newuidmap catatonit busybox ssh-keygen curl git ip python3)

case ${1-} in
  list) (IFS=,; echo "${tests[*]}"); exit;;
  demo) wanted=("${demo[@]}");;
  test|bench) wanted=("${tests[@]}");;
  chaos) wanted=("${tests[@]}" gcc libc6-dev);;
  *) echo "usage: tests/lab/packages.sh demo|test|bench|chaos|list" >&2; exit 2;;
esac

if ! command -v dpkg-query >/dev/null; then
  for program in "${programs[@]}"; do
    command -v "$program" >/dev/null || missing+=("$program")
  done
  [[ -z ${missing-} ]] && exit 0
  echo "Not a Debian machine. Please install: ${missing[*]}" >&2
  exit 1
fi

for package in "${wanted[@]}"; do
  [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
done
[[ -z ${missing-} ]] && exit 0
install=(apt-get install -y -qq --no-install-recommends "${missing[@]}")
sudo=()
if [[ $(id -u) != 0 ]]; then
  # a question for the password is fine at a terminal
  if ! command -v sudo >/dev/null || { [[ ! -t 0 ]] && ! sudo -n true 2>/dev/null; }; then
    echo "Packages are missing. Run as root: ${install[*]}" >&2
    exit 1
  fi
  sudo=(sudo --)
fi
echo "installing: ${missing[*]}" >&2
# nginx, if it comes, is for the measurements: no service is started or left enabled by this
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 "${install[@]}" >/dev/null
