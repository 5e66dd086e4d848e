"""`terok pending` and `terok decide`: everything that waits for the operator, and the answer to it."""

from __future__ import annotations

import time

from ...supervisor.ground import paste
from ...supervisor.ground.errors import Exit, TerokError
from ..kit.table import plain, table
from ..kit.verb import argument, one_of, switch, verb
from . import items
from .items import Answer, Item

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace

    from ..kit.env import Env

ALLOW, DENY = "allow", "deny"
RAISE_MAX = 10**15


@verb(
    argument("name", nargs="?", metavar="NAME", help="one container (default: all)", values="containers"),
    examples=("terok pending", "terok pending box --json"),
)
def pending(args: Namespace, env: Env) -> int:
    """Show everything that waits for a decision: held connections, gate proposals, signatures, limits reached.

    What ends first stands first. Each row has the command that `terok decide ID allow` is equal to; --json has the
    commands for both answers and, for a proposal, the one that shows its changes.
    """
    if args.name is not None:
        env.layout.bundle(args.name)  # refuses what is no name
    waiting, unread = items.waiting(env.layout, args.name)
    now = time.time()
    text = table([items.HEADER, *(item.row(now) for item in waiting)], env.out) if waiting else "Nothing waits."
    env.out.emit([item.plain() for item in waiting], text)
    for place in unread:
        env.note(plain(place.why))
    return Exit.FAILURE if unread else Exit.OK


@verb(
    argument("id", metavar="ID", help="from `terok pending`", values="waiting"),
    argument("answer", choices=(ALLOW, DENY), help="go on, approve, sign or raise; or refuse, reject, do not sign"),
    one_of(
        switch("--once", "only what waits now (default)"),
        argument("--for", dest="duration", metavar="TIME", help="allow a connection's name for 30s, 5m or 2h"),
        switch("--always", "make a lasting entry, as `terok shield allow` and `deny` do"),
    ),
    argument("--raise", dest="raise_by", type=int, metavar="N", help="raise a limit by N (default: by what it allows)"),
    examples=(
        "terok decide 0a1b2c3d4e5f allow --for 10m",
        "terok decide work/7 allow",
        "terok decide work/7 deny",
        "terok decide work/limit allow --raise 500",
    ),
)
def decide(args: Namespace, env: Env) -> int:
    """Answer one thing that waits: a held connection, a gate proposal, a signature or a usage limit.

    --for and --always concern connections only. A proposal that is allowed is pushed to upstream, one that is denied
    can be restored for 30 days (`terok gate restore`). A limit that is allowed is raised for good (`terok vault limit`
    changes it again), one that is denied stands and is not asked about again in its hour or day.
    """
    from ..shield.cli import seconds_of

    if args.duration and args.answer == DENY:
        raise TerokError("--for goes with allow only.", fix=_without_time(args), code=Exit.USAGE)
    seconds = seconds_of(args.duration) if args.duration else None
    item = items.find(env.layout, args.id)
    if (args.always or seconds) and item.kind not in items.LASTING:
        raise TerokError(
            f"--for and --always go with connections only; {item.id} is a {item.kind}.",
            fix=_without_time(args),
            code=Exit.USAGE,
        )
    raises = item.kind == items.LIMIT and args.answer == ALLOW
    if args.raise_by is not None and not (raises and 0 < args.raise_by < RAISE_MAX):
        raise TerokError(
            "--raise goes with allowing a limit, and says a number of 1 or more.",
            fix=_without_time(args),
            code=Exit.USAGE,
        )
    item.act(env, Answer(args.answer == ALLOW, args.always, seconds, args.raise_by))
    how = f"for {args.duration}" if seconds else "for good" if args.always else "once"
    env.out.emit({**item.plain(), "answer": args.answer, "how": how}, _done(item, args.answer, how))
    return Exit.OK


def _without_time(args: Namespace) -> str:
    return paste.command("terok", "decide", args.id, args.answer) or "terok decide ID allow|deny"


def _done(item: Item, answer: str, how: str) -> str:
    who = f" for {item.container}" if item.container else ""
    lasting = f", {how}" if item.kind in items.LASTING else ""
    return plain(f"{'Allowed' if answer == ALLOW else 'Denied'}{who}: {item.what}{lasting}")
