"""The verbs of the command line: which module has each, and one line of help. The only list of them.

A module is imported when its verb was asked for, so that no verb pays for another's imports. It provides
`register(commands)`, which adds all of its verbs with `commands.add_parser(verb, help=..., ...)` and
`set_defaults(run=function)`, where `function(args, env) -> int` returns an exit code.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

VERBS: tuple[tuple[str, str, str], ...] = (
    ("run", "launch.cli", "start a container with its services"),
    ("prepare", "launch.cli", "write a container's wiring and print the podman flags for it"),
    ("cleanup", "launch.cli", "revoke a container's tokens and delete its state"),
    ("status", "care.status", "containers, their supervisors and sidecars"),
    ("logs", "care.logs", "what a container did and what it was refused"),
    ("setup", "care.setup", "install the hooks and check what the host has"),
    ("uninstall", "care.setup", "take back what setup did"),
    ("heal", "care.heal", "start a new supervisor for a container that has lost its own"),
    ("doctor", "care.doctor", "find the one cause of a problem, and mend it"),
    ("config", "care.config", "show and change the configuration"),
    ("agents", "care.agents", "the agents of the roster and what each has configured"),
    ("auth", "vault.auth", "log in to a provider"),
    ("shield", "shield.cli", "the egress firewall of a container"),
    ("vault", "vault.cli", "credentials and their encryption"),
    ("ssh", "ssh.cli", "SSH keys that sign for containers"),
    ("gate", "gate.cli", "git mirrors that containers may use"),
    ("completion", "completion", "print the completion script of a shell, or the man pages"),
)
"""(verb, module of `runtime/`, one line of help), in the order of `terok --help`."""

PASSTHROUGH = frozenset({"run", "prepare"})
"""Verbs whose words after the first `--` belong to podman; they arrive as `args.rest`, untouched by argparse."""


def module_of(verb: str) -> str | None:
    """The module that has `verb`; None when there is no such verb."""
    return next((module for name, module, _ in VERBS if name == verb), None)


def modules() -> Iterator[str]:
    """Every module once, in the table's order."""
    yield from dict.fromkeys(module for _, module, _ in VERBS)
