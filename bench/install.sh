#!/bin/bash
# bench/install.sh: what `make bench` compares with: Debian packages, and mitmproxy in an environment of its own, since it
# pins versions of what terok uses too. Without mitmproxy its figures are left out. Only its program lies in build/bench-bin.
set -euo pipefail
bash tests/lab/packages.sh bench
if [[ ! -x build/bench-bin/mitmdump ]]; then
  echo "installing: mitmproxy, into build/mitmproxy" >&2
  if "${PYTHON:-/usr/bin/python3}" -m venv build/mitmproxy && build/mitmproxy/bin/python -m pip install --quiet --disable-pip-version-check mitmproxy; then
    mkdir -p build/bench-bin
    ln -sfn ../mitmproxy/bin/mitmdump build/bench-bin/mitmdump
    chmod -R a+rX build/mitmproxy build/bench-bin
  else
    echo "bench: mitmproxy could not be installed; it is left out" >&2
  fi
fi
