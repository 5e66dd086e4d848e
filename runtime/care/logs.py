"""`terok logs`: what a container did and what it was refused, from its audit log."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from itertools import chain

from ...supervisor.ground.errors import Exit
from ..kit.audit_lines import local_time, since_text, waiting
from ..kit.env import Env, Output
from ..kit.verb import CONTAINER, argument, switch, verb
from ..launch.resources import require_bundle

_SHOWN_FIRST = ("time", "source", "event", "verdict")


@verb(
    CONTAINER,
    argument("-n", "--lines", type=int, default=50, metavar="N", help="the newest N lines (default 50)"),
    argument("--source", metavar="SERVICE", help="only one service: shield, vault, ssh, gate, hook", values="sources"),
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

    def wanted(line: dict[str, object]) -> bool:
        of_source = args.source is None or line.get("source") == args.source
        recent = str(line.get("time", "")) >= since
        return of_source and recent and (not args.refused or line.get("verdict") == "refused")

    lines = [line for line in read(bundle.audit) if wanted(line)]
    lines = lines[-args.lines :] if args.lines > 0 else []
    if not args.follow:
        env.out.emit(lines, "\n".join(render(line, env.out) for line in lines))
        return Exit.OK
    for line in chain(lines, filter(wanted, waiting(bundle.audit))):
        env.out.stream.write((json.dumps(line) if env.out.json_output else render(line, env.out)) + "\n")
        env.out.stream.flush()
    return Exit.OK


def read(path: str) -> Iterator[dict[str, object]]:
    """Every line of an audit log and of its predecessor `PATH.1`, oldest first; lines that are no JSON are left out."""
    for part in (path + ".1", path):
        try:
            with open(part, encoding="utf-8", errors="replace") as file:
                for line in file:
                    try:
                        value = json.loads(line)
                    except ValueError:
                        continue
                    if isinstance(value, dict):
                        yield value
        except FileNotFoundError:
            continue


def render(line: dict[str, object], out: Output) -> str:
    """One line for people; what the container sent is shown with control characters escaped."""
    head = [local_time(line.get("time", "")), *(str(line.get(name, "")) for name in _SHOWN_FIRST[1:])]
    if head[3] == "refused":
        head[3] = out.paint(head[3], "bad")
    rest = [
        f"{name}={_plain(value)}"
        for name, value in line.items()
        if name not in _SHOWN_FIRST and value not in ("", None)
    ]
    return " ".join([each for each in head if each] + rest)


def _plain(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return f'"{text}"' if " " in text else text
