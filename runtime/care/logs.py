"""`terok logs`: what a container did and what it was refused, from its audit log."""

from __future__ import annotations

import argparse

from ...supervisor.ground.errors import Exit
from ..kit.audit_lines import line, read
from ..kit.env import Env
from ..kit.verb import CONTAINER, argument, switch, verb
from ..launch.resources import require_bundle


@verb(
    CONTAINER,
    argument("-n", "--lines", type=int, default=50, metavar="N", help="the newest N lines (default 50)"),
    argument("--source", metavar="SERVICE", help="only one service: shield, vault, ssh, gate, hook", values="sources"),
    switch("--refused", "only refusals"),
    examples=("terok logs box --refused",),
)
def run(args: argparse.Namespace, env: Env) -> int:
    """Print a container's audit log: what its services did, each refusal, its reason and what would allow it."""
    bundle = require_bundle(env.config, args.name)
    entries = [
        entry
        for entry in read(bundle.audit)
        if (args.source is None or entry.get("source") == args.source)
        and (not args.refused or entry.get("verdict") == "refused")
    ]
    entries = entries[-args.lines :] if args.lines > 0 else []
    env.out.emit(entries, "\n".join(line(entry, env.out) for entry in entries))
    return Exit.OK
