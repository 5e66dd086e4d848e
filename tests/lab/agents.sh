#!/bin/bash
# tests/lab/agents.sh DIR: install what tests/podman/agents*.py try, as their vendors publish them (1.5 GB).
set -euo pipefail
umask 022
mkdir -p "$1"; cd "$1"
packages=(@anthropic-ai/claude-code @openai/codex @google/gemini-cli opencode-ai @github/copilot node@22
  npm @anthropic-ai/sdk openai undici)
# npm >= 11.17 runs the scripts of named packages only; these fetch their program for this machine out of the registry
cat >package.json <<'J'
{"private": true, "allowScripts": {"@anthropic-ai/claude-code": true, "opencode-ai": true, "node": true}}
J
npm install --no-fund --no-audit --loglevel=error "${packages[@]}"
[[ -d site ]] || "${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --target site huggingface_hub
chmod -R a+rX .
