"""`terok top`: the live view in the terminal, or one snapshot for programs and pipes."""

from __future__ import annotations

import sys
import time

from ...supervisor.ground.errors import Exit, TerokError
from ..kit.table import table
from ..kit.verb import verb
from .gather import Watch
from .model import Snapshot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from ..kit.env import Env, Output
    from .columns import Column, Line


@verb(
    examples=("terok top", "terok top --json"),
    files=("~/.local/share/terok/vault/usage.db",),
)
def run(args: Namespace, env: Env) -> int:
    """Show every container live, with one queue of everything that waits for you; keys decide.

    For each container: its state, the memory of terok's processes, requests, tokens and their list price today (UTC),
    and refusals. Enter shows its connections, log, wiring, and why something is refused. Every answer is offered with
    the command that it is equal to, and given by a second press of the key. Without a terminal that moves its cursor,
    or with --json, one snapshot is printed.
    """
    watch = Watch(env, env.config.top.prices)
    simple = env.environ.get("TERM", "dumb") == "dumb"
    if env.out.json_output or simple or not (env.out.stream.isatty() and sys.stdin.isatty()):
        try:
            snapshot = watch.look(time.time())
        finally:
            watch.close()
        env.out.emit(snapshot.plain(), page(snapshot, env.out))
        return Exit.OK
    return _show(env, watch)


def _show(env: Env, watch: Watch) -> int:
    try:
        from .app import Top
    except ImportError as error:
        raise TerokError(
            f"`terok top` needs the package {error.name}.",
            fix="pip install textual, or terok top --json for one snapshot",
            code=Exit.MANUAL,
        ) from error
    app = Top(env, watch.look, watch.close)
    app.run(mouse=False)
    return app.return_code or Exit.OK


def page(snapshot: Snapshot, out: Output) -> str:
    """A snapshot for people, as the tables of the other verbs."""
    from . import text  # brings rich, which what makes the man pages of the wheel does not have

    parts = [text.summary(snapshot)]
    for columns, lines in (
        (text.CONTAINERS, text.containers(snapshot)),
        (text.QUEUE, text.queue(snapshot)),
        (text.REFUSALS, text.refusals(snapshot.refusals[:20])),
    ):
        if lines:
            parts += ["", _table(columns, lines, out)]
    return "\n".join([*parts, *snapshot.unread])


def _table(columns: Sequence[Column], lines: Sequence[Line], out: Output) -> str:
    return table([tuple(column.title for column in columns), *(line.cells for line in lines)], out)
