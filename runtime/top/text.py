"""What the lists and pages of `terok top` say, as lines of cells. Pure: a snapshot in, lines out."""

from __future__ import annotations

import math

from ...supervisor.ground import paste
from ..care.status import ON_DEMAND, UNPROTECTED, duration
from ..kit.audit_lines import local_time
from .columns import Column, Line, cell
from .model import rank

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..queue.items import Item
    from .model import Container, Destination, Refusal, Snapshot

BAD, WARNING, DIM, GOOD, PLAIN = "bad", "warning", "dim", "good", ""
RANKS = (BAD, BAD, WARNING, PLAIN, DIM)
"""How a container's line looks, by its rank."""

QUEUE = (
    Column("KIND", 8),
    Column("FROM", 6),
    Column("WANTS TO", 20),
    Column("LEFT", 4, right=True),
)
CONTAINERS = (
    Column("CONTAINER", 10),
    Column("STATE", 7),
    Column("NETWORK", 4),
    Column("MEMORY", 4, right=True),
    Column("REQ", 3, right=True),
    Column("TOKENS", 4, right=True),
    Column("COST", 4, right=True),
    Column("REFUSED", 3, right=True),
)
REFUSALS = (
    Column("TIME", 8),
    Column("CONTAINER", 8),
    Column("BY", 4),
    Column("REFUSED", 16),
    Column("WHY", 8),
)
DESTINATIONS = (
    Column("DESTINATION", 20),
    Column("OPEN", 4, right=True),
    Column("SEEN", 4, right=True),
    Column("SENT", 5, right=True),
    Column("RECEIVED", 8, right=True),
)
SERVICES = (
    Column("SERVICE", 10),
    Column("STATE", 9),
    Column("MEMORY", 6, right=True),
    Column("RESTARTS", 8, right=True),
)


def summary(snapshot: Snapshot) -> str:
    """The first line: how many containers, how many of them are open, what waits, what was used today."""
    bare = sum(rank(row) == 0 for row in snapshot.containers)
    running = sum(0 < rank(row) < 4 for row in snapshot.containers)
    parts = [f"{bare} UNPROTECTED"] if bare else []
    parts += [f"{running} running", f"{len(snapshot.queue)} waiting"]
    usage, cost = snapshot.usage, money(snapshot)
    today = [cost] if cost != "-" else []
    today += [f"{count(usage.tokens)} tokens", f"{count(usage.requests)} requests"]
    return "  ".join([*parts, f"today: {', '.join(today)}"])


def heading(snapshot: Snapshot) -> str:
    """The title of the containers: how many, and the memory that terok takes for all of them."""
    memory = sum(row.memory for row in snapshot.containers)
    return f"Containers: {len(snapshot.containers)}" + (f", {size(memory)}" if memory else "")


def money(snapshot: Snapshot, row: Container | None = None) -> str:
    """What was used today at list prices; `+` says that there are tokens whose price is unknown, `-` that all are."""
    usage = snapshot.usage if row is None else row.usage
    if not usage.tokens or (usage.unpriced >= usage.tokens and not usage.cost):
        return "-"
    sign = {"USD": "$", "EUR": "\N{EURO SIGN}"}.get(snapshot.currency, f"{snapshot.currency} ")
    return f"{sign}{usage.cost:,.2f}{'+' if usage.unpriced > 0 else ''}"


def queue(snapshot: Snapshot) -> list[Line]:
    """What waits for a decision."""
    return [
        Line(
            item_key(item),
            (item.kind, cell(item.container or "-"), cell(item.what), left(item, snapshot.time)),
        )
        for item in snapshot.queue
    ]


def item_key(item: Item) -> str:
    """Which item a line of the queue is."""
    return f"{item.kind} {item.container} {item.id}"


def refusal_key(row: Refusal) -> str:
    """Which refusal a line is."""
    return f"{row.time} {row.container} {row.what}"


def left(item: Item, now: float) -> str:
    """How long an item goes on waiting."""
    return "-" if item.until == math.inf else duration(max(0.0, item.until - now))


def containers(snapshot: Snapshot) -> list[Line]:
    """Every container; the unprotected ones are first and red."""
    return [
        Line(
            row.name,
            (
                cell(row.name),
                cell(row.state),
                cell(row.network),
                size(row.memory) if row.memory else "-",
                count(row.usage.requests),
                count(row.usage.tokens),
                money(snapshot, row),
                count(row.refused) + ("+" if row.truncated and row.refused else ""),
            ),
            RANKS[rank(row)],
        )
        for row in snapshot.containers
    ]


def refusals(rows: Iterable[Refusal]) -> list[Line]:
    """Refusals, in the order given."""
    return [
        Line(
            refusal_key(row),
            (
                cell(local_time(row.time)),
                cell(row.container),
                cell(row.source),
                (f"{count(row.times)} x " if row.times > 1 else "") + cell(row.what),
                cell(row.why or "not allowed"),
            ),
        )
        for row in rows
    ]


def about(row: Container) -> str:
    """One line about a chosen container: what helps it, else its services."""
    if row.state == UNPROTECTED:
        return cell(f"runs without its firewall and services. Fix: {row.fix}")
    if row.troubles:
        return cell(f"trouble: {row.troubles[0]}")
    if row.error and rank(row) in (1, 4):
        return cell(f"last error: {row.error}")
    running = [service.name for service in row.services if service.memory is not None]
    waiting = [service.name for service in row.services if service.state == ON_DEMAND]
    parts = [f"scope {row.scope}"] if row.scope else []
    parts += [f"up {duration(row.uptime)}"] if row.uptime is not None else []
    parts += [f"running {' '.join(running)}"] if running else []
    parts += [f"on demand {' '.join(waiting)}"] if waiting else []
    return cell(", ".join(parts))


def refused(row: Refusal) -> str:
    """One line about a chosen refusal: the command that its writer proposes."""
    return cell(f"would be allowed by: {row.allow}" if row.allow else row.why)


def command(item: Item, *, allowed: bool, words: tuple[str, ...] = ()) -> str:
    """The command that an answer is equal to; with `words`, what `terok decide` adds to it."""
    if not words and (shown := item.allow if allowed else item.deny):
        return shown
    return paste.command("terok", "decide", item.id, "allow" if allowed else "deny", *words)


def destinations(rows: tuple[Destination, ...]) -> list[Line]:
    """Bytes by destination."""
    return [
        Line(
            row.place,
            (cell(row.place), count(row.open), count(row.seen), size(row.sent), size(row.received)),
            GOOD if row.open else PLAIN,
        )
        for row in rows
    ]


def services(row: Container) -> list[Line]:
    """A container's services."""
    return [
        Line(
            service.name,
            (
                cell(service.name),
                cell(service.state),
                size(service.memory) if service.memory else "-",
                str(service.restarts),
            ),
            BAD if service.state == "failed" else DIM if service.state == ON_DEMAND else PLAIN,
        )
        for service in row.services
    ]


def count(number: int) -> str:
    """A number in at most five letters: 999, 12.3k, 4.5M."""
    if number < 1000:
        return str(number)
    value, letter = number / 1000, "k"
    for larger in "MGT":
        if value < 999.5:
            break
        value, letter = value / 1000, larger
    return f"{value:.1f}{letter}" if value < 99.95 else f"{value:.0f}{letter}"


def size(number: int) -> str:
    """Bytes in short: 999 B, 12.3 kB."""
    text = count(number)
    return f"{text} B" if number < 1000 else f"{text[:-1]} {text[-1]}B"
