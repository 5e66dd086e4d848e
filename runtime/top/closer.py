"""What the pages of `terok top` read beyond the snapshot: a patch, a log, a wiring, why a request is refused."""

from __future__ import annotations

import sqlite3
from urllib.parse import urlsplit

from ...sidecars.gate import config, review, state
from ...sidecars.vault.books.ledger import Ledger, period_start
from ...supervisor import schema
from ...supervisor.ground.errors import TerokError
from ..care.status import container_status, duration, service_word
from ..kit import audit_lines
from ..queue import items
from ..vault import explain
from . import text
from .columns import Line, cell, row
from .tail import Tail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ...supervisor.ground.layout import Bundle
    from ..kit.env import Env
    from ..queue.items import Item

LINES_MAX = 20_000
"""Lines of a page."""
LOG_MAX = 500
PATCH_STYLES = {"+": text.GOOD, "-": text.BAD, "@": text.DIM}


def item(env: Env, waiting: Item, now: float) -> list[Line]:
    """Everything about one thing that waits.

    Args:
        env: whose.
        waiting: as the queue has it.
        now: Unix time.
    """
    head = [f"{waiting.kind} {waiting.id}" + (f" of {waiting.container}" if waiting.container else ""), waiting.what]
    head += [f"asked {duration(max(0.0, now - waiting.since))} ago, left {text.left(waiting, now)}"]
    head += [f"$ {waiting.look}"] if waiting.look else []
    more: dict[str, Callable[[Env, Item], list[Line]]] = {
        items.PROPOSAL: _patch,
        items.LIMIT: _used,
        items.CONNECTION: _asked,
    }
    body = _guarded(lambda: more[waiting.kind](env, waiting)) if waiting.kind in more else []
    return [*_lines(head), *body]


def _patch(env: Env, waiting: Item) -> list[Line]:
    scope, _, number = waiting.id.rpartition("/")
    home = env.layout.gate_home(scope)
    proposal = review.find(state.State.peek(home), scope, int(number))
    commits, patch = review.show(home, config.load(home), proposal)
    rows = [f"{proposal.old[:12]} -> {proposal.new[:12]}", *commits.split("\n"), "", *patch.split("\n")]
    lines = _lines(rows[:LINES_MAX], "patch ")
    lines = [line._replace(style=PATCH_STYLES.get(line.cells[0][:1], "")) for line in lines]
    if len(rows) > LINES_MAX:
        lines += _lines([f"{len(rows) - LINES_MAX} lines more: {waiting.look}"], "more ")
    return lines


def _used(env: Env, waiting: Item) -> list[Line]:
    scope = waiting.id.rpartition("/")[0]
    with Ledger(env.layout.vault_usage, read_only=True) as ledger:
        used = ledger.rows(since=period_start("day", waiting.since), scope=scope)
    texts = (
        f"{usage.container} {usage.provider}: {usage.requests} requests, "
        f"{usage.input_tokens + usage.output_tokens} tokens today"
        for usage in used
    )
    return _lines(texts, "used ")


def _asked(env: Env, waiting: Item) -> list[Line]:
    """What is known of the container that asks: its last entries about connections."""
    return log(env.layout.bundle(waiting.container), 50)


def log(bundle: Bundle, count: int = LOG_MAX) -> list[Line]:
    """The last entries of a container's log, the newest first."""
    entries = Tail(bundle.audit).new()[-count:]
    return [
        Line(f"log {at}", (row(audit_lines.line(entry)),), text.BAD if entry.get("verdict") == "refused" else "")
        for at, entry in reversed(list(enumerate(entries)))
    ]


def wiring(env: Env, name: str, now: float) -> list[Line]:
    """How a container is wired: what its sidecar JSON says, and what runs of it."""
    return _guarded(lambda: _lines(_wiring(env.layout.bundle(name), now)))


def _wiring(bundle: Bundle, now: float) -> Iterable[str]:
    status = container_status(bundle, now=now)
    yield f"{status['state']}, network {status['network'] or '-'}, mode {status['mode']}"
    yield f"scope {status['scope'] or 'none'}, profiles {' '.join(map(str, status['profiles'])) or 'none'}"
    yield from (f"trouble: {trouble}" for trouble in status["troubles"])
    if status["error"]:
        yield f"last error: {status['error']}"
    pair = status["supervisor"]
    yield f"supervisor {pair['state']}, {pair['processes']} processes, {text.size(pair['memory'] or 0)}"
    running = {service["name"]: service for service in status["sidecars"]}
    wired = schema.load(bundle.sidecar)
    for sidecar in wired.sidecars:
        seen = running.get(sidecar.name)
        state_word = service_word(seen["state"]) if seen else "not running"
        starts = "on demand" if sidecar.start == "demand" else "with the container"
        yield f"{sidecar.name}: {state_word}, starts {starts}"
        if seen and seen["restarts"]:
            yield f"  restarted {seen['restarts']} times, last ended: {seen['last_exit'] or '-'}"
        yield from (f"  listens on {listener}" for listener in sidecar.listeners)
    for port in status["published"]:
        yield f"published {port['host']}:{port['host_port']} -> {port['port']}"
    for mount in wired.mounts:
        yield f"mount {mount.target} <- {mount.source}{' (read-only)' if mount.read_only else ''}"
    yield f"bundle {bundle.root}"


def why(env: Env, name: str, url: str, method: str = "GET") -> list[Line]:
    """What would happen to a request, as `terok explain` says it."""

    def ask() -> list[Line]:
        wired = schema.load(env.layout.bundle(name).sidecar)
        return _lines(explain.text(explain.explain(env, wired, url, method)).split("\n"), "why ")

    return _guarded(ask)


def checked(url: str) -> str:
    """A URL as a person types it: without a scheme, https is meant."""
    return url if urlsplit(url).scheme in ("http", "https") else f"https://{url}"


def _guarded(read: Callable[[], list[Line]]) -> list[Line]:
    """What was read, or why it could not be: a container may go while its page is open."""
    try:
        return read()
    except (TerokError, OSError, ValueError, KeyError, TypeError, sqlite3.Error) as error:
        return [Line("error", (cell(f"Cannot be shown: {error}"),), text.BAD)]


def _lines(texts: Iterable[str], prefix: str = "") -> list[Line]:
    return [Line(f"{prefix}{at}", (row(text),)) for at, text in enumerate(texts)]
