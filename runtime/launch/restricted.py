"""Restricted mode: podman's flags, and policy files that keep agents from approving their own actions.

`docs/restricted.md` has the table of what each mode does; a test compares it with this file.
"""

from __future__ import annotations

import os

from ...supervisor.ground.layout import Bundle
from ...supervisor.schema import Mount
from ..kit import files
from ..kit.config import RestrictedConfig

CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID")
"""What an image's entry point needs to prepare files for an ordinary user and to become that user."""

POLICIES: dict[str, str] = {
    "/etc/claude-code/managed-settings.json": '{"permissions": {"disableBypassPermissionsMode": "disable"}}\n',
    "/etc/codex/requirements.toml": (
        'allowed_approval_policies = ["untrusted", "on-request"]\n'
        'allowed_sandbox_modes = ["read-only", "workspace-write"]\n'
    ),
    "/etc/gemini-cli/settings.json": '{"security": {"disableYoloMode": true}}\n',
}
"""System-wide settings of agents, which win over the user's own: no mode without confirmations."""


def flags(limits: RestrictedConfig) -> list[str]:
    """What restricted mode adds to podman's flags."""
    words = ["--security-opt", "no-new-privileges", "--cap-drop", "ALL"]
    for name in CAPABILITIES:
        words += ["--cap-add", name]
    words += ["--pids-limit", str(limits.pids), "--memory", limits.memory]
    return [*words, "--read-only"] if limits.read_only else words


def write_policies(bundle: Bundle) -> list[Mount]:
    """Write the policy files into the bundle; returns their read-only mounts."""
    mounts = []
    for target, content in POLICIES.items():
        source = bundle.policy_file(target)
        files.make_dir(os.path.dirname(source))
        files.write(source, content, mode=0o644)
        mounts.append(Mount(source, target, read_only=True))
    return mounts
