"""What `terok top` shows at one moment, as frozen records. No I/O, no terminal: `gather.py` reads, `text.py` renders.

Everything here that is a text may come from a container (names, hosts, refs, paths): it is kept as it came, and
rendered without control characters and never as markup.
"""

from __future__ import annotations

from typing import NamedTuple

from ..care.status import UNPROTECTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..queue.items import Item

BROKEN = frozenset({"unsupervised", "suspended", "failed", "unreadable"})
"""States of a container that need the operator, after the unprotected ones."""
LIVE = frozenset({"running", "starting", "ending"})


class Service(NamedTuple):
    """One service of a container; `memory` in bytes, None when its process does not run."""

    name: str
    state: str
    memory: int | None
    restarts: int


class Destination(NamedTuple):
    """Where a container's bytes go.

    Attributes:
        place: `name:port`, or `address:port` where no name is known.
        seen: connections and requests that were seen.
        open: connections that are open.
        sent, received: bytes, as the container sees them.
    """

    place: str
    seen: int
    open: int
    sent: int
    received: int


class Refusal(NamedTuple):
    """One refusal of the audit log.

    Attributes:
        time: as the log writes it (UTC).
        allow: the command that would allow it, in its writer's words.
        times: how often it happened.
        method, url: what `terok explain` can be asked about; empty when it is about no request.
    """

    time: str
    container: str
    source: str
    what: str
    why: str
    allow: str
    times: int
    method: str = ""
    url: str = ""


class Usage(NamedTuple):
    """What was used today (UTC); `cost` in the price table's currency.

    Attributes:
        unpriced: tokens of models that the price table does not know; they are not in `cost`.
    """

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost: float = 0.0
    unpriced: int = 0

    @property
    def tokens(self) -> int:
        """Input and output."""
        return self.input_tokens + self.output_tokens

    def plus(self, other: Usage) -> Usage:
        """Both together."""
        return Usage(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.cost + other.cost,
            self.unpriced + other.unpriced,
        )


class Container(NamedTuple):
    """One container.

    Attributes:
        name: as in its state bundle; for an unprotected one that has none, as Podman calls it.
        state: as `terok status` says it, or `UNPROTECTED`.
        network, scope, mode: from its launch.
        memory: bytes that terok's processes for it take (PSS; RSS where the kernel does not show the PSS).
        refused: refusals in the part of its log that was read.
        fix: for an unprotected one, the command that helps.
        truncated: the log was longer than the part that was read.
    """

    name: str
    state: str
    network: str = "-"
    scope: str = ""
    mode: str = ""
    memory: int = 0
    uptime: float | None = None
    services: tuple[Service, ...] = ()
    troubles: tuple[str, ...] = ()
    error: str = ""
    usage: Usage = Usage()
    refused: int = 0
    destinations: tuple[Destination, ...] = ()
    fix: str = ""
    truncated: bool = False


class Snapshot(NamedTuple):
    """Everything at one moment.

    Attributes:
        time: Unix time.
        containers: the unprotected ones first, then those with a problem, then those that run.
        queue: what waits for the operator, in the order of `terok pending`.
        refusals: the newest first, of all containers.
        unread: sentences about what could not be read.
        currency, priced: of the price table, and its date.
    """

    time: float
    containers: tuple[Container, ...] = ()
    queue: tuple[Item, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    unread: tuple[str, ...] = ()
    currency: str = "USD"
    priced: str = ""

    @property
    def usage(self) -> Usage:
        """Of all containers."""
        total = Usage()
        for container in self.containers:
            total = total.plus(container.usage)
        return total

    def container(self, name: str) -> Container | None:
        """A container by its name; None when it is gone."""
        return next((row for row in self.containers if row.name == name), None)

    def plain(self) -> dict[str, object]:
        """As plain data for JSON."""
        return {
            "time": self.time,
            "containers": [_plain(row) for row in self.containers],
            "queue": [item.plain() for item in self.queue],
            "refusals": [row._asdict() for row in self.refusals],
            "unread": list(self.unread),
            "usage": self.usage._asdict(),
            "currency": self.currency,
            "prices_of": self.priced,
        }


def _plain(row: Container) -> dict[str, object]:
    return row._asdict() | {
        "services": [service._asdict() for service in row.services],
        "destinations": [place._asdict() for place in row.destinations],
        "usage": row.usage._asdict(),
    }


def order(containers: Iterable[Container]) -> tuple[Container, ...]:
    """The order in which containers are shown: what needs the operator first."""
    return tuple(sorted(containers, key=lambda row: (rank(row), row.name)))


def rank(row: Container) -> int:
    """0: unprotected, 1: broken, 2: in trouble, 3: runs, 4: does not run."""
    if row.state == UNPROTECTED:
        return 0
    if row.state in BROKEN:
        return 1
    if row.state in LIVE:
        return 2 if row.troubles else 3
    return 4
