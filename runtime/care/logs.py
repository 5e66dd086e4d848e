"""`terok logs`: what a container did and what it was refused, from its audit log."""

from __future__ import annotations

import argparse
import json
import time
from itertools import chain

from ...supervisor.ground.errors import Exit
from ..kit.audit_lines import line, read, since_text, waiting
from ..kit.env import Env
from ..kit.verb import CONTAINER, argument, switch, verb
from ..launch.resources import require_bundle


@verb(
    CONTAINER,
    argument("-n", "--lines", type=int, default=50, metavar="N", help="the newest N lines (default 50)"),
    argument(
        "--source", metavar="SERVICE", help="only one service: shield, vault, ssh, gate, mcp, hook", values="sources"
    ),
    switch("--refused", "only refusals"),
    argument("--since", metavar="TIME", help="only what is newer: 30s, 5m, 2h, or a time such as 2026-01-31T12:00:00Z"),
    argument("-f", "--follow", action="store_true", help="wait for new lines and print them"),
    examples=("terok logs box --refused",),
)
def run(args: argparse.Namespace, env: Env) -> int:
    """Print a container's audit log: what its services did, each refusal, its reason and what would allow it.

    Times are local; --json has them in UTC (RFC 3339), and with --follow one object a line.
    """
    bundle = require_bundle(env.config, args.name)
    since = since_text(args.since, time.time()) if args.since else ""

    def wanted(entry: dict[str, object]) -> bool:
        of_source = args.source is None or entry.get("source") == args.source
        recent = str(entry.get("time", "")) >= since
        return of_source and recent and (not args.refused or entry.get("verdict") == "refused")

    entries = [entry for entry in read(bundle.audit) if wanted(entry)]
    entries = entries[-args.lines :] if args.lines > 0 else []
    if not args.follow:
        env.out.emit(entries, "\n".join(line(entry, env.out) for entry in entries))
        return Exit.OK
    for entry in chain(entries, filter(wanted, waiting(bundle.audit))):
        env.out.stream.write((json.dumps(entry) if env.out.json_output else line(entry, env.out)) + "\n")
        env.out.stream.flush()
    return Exit.OK
