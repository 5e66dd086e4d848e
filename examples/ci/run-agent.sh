#!/bin/sh
# Runs Claude Code without a person in a CI job: run-agent.sh PROMPT [IMAGE], from the checkout of the project.
#
# The key comes from the CI system as ANTHROPIC_API_KEY and goes into the runner's vault over standard input; the
# container gets a phantom token. The agent works on a clone, and no git command runs on the host in what it wrote: a
# repository's own configuration can name programs. What it changed is agent.patch afterwards, what it did and was
# refused agent-audit.json. The exit code is the agent's.
set -eu
prompt=$1
image=${2-}
scope=ci
name=ci-agent
checkout=$PWD
work=$(mktemp -d)

printf '%s\n' "$ANTHROPIC_API_KEY" | terok vault add "$scope" anthropic --replace
unset ANTHROPIC_API_KEY

finish() {
  code=$?
  cd "$checkout"
  timeout 120 diff --recursive --new-file --unified --no-dereference --exclude=.git . "$work" >"$work.patch" || true
  mv "$work.patch" agent.patch
  terok logs "$name" --json >agent-audit.json || true
  terok rm --force "$name" || true
  terok vault remove "$scope" anthropic || true
  rm -rf "$work"
  exit "$code"
}
trap finish EXIT

git clone --quiet --no-hardlinks . "$work"
cd "$work"
terok start claude --scope "$scope" --name "$name" ${image:+--image "$image"} -- --print "$prompt" </dev/null
