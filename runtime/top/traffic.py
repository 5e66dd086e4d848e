"""What a container's audit log says about its connections, bytes and refusals, folded entry by entry. No I/O.

Every sidecar writes the log, and each of them parses what the container sends: a value is believed only where it has
the right type, and what is kept is bounded.
"""

from __future__ import annotations

from collections import Counter, deque

from .model import Destination, Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PLACES_MAX = 100
"""Destinations that are told apart; further ones are counted together."""
OPEN_MAX = 2000
"""Connections that are remembered as open."""
REFUSALS_MAX = 50
TEXT_MAX = 300
ELSEWHERE = "(others)"
BEGUN = frozenset({"allowed", "learn", "bypassed", "brokered"})
"""Verdicts of a connection that the relay has made or handed to the vault."""


class Traffic:
    """One container's traffic, as far as its log was read.

    Args:
        container: its name, for the refusals.

    Attributes:
        refused: how many refusals were seen.
        refusals: the newest of them, oldest first.
    """

    def __init__(self, container: str) -> None:
        self._container = container
        self._places: dict[str, list[int]] = {}
        self._open: dict[int, str] = {}
        self.refused = 0
        self.refusals: deque[Refusal] = deque(maxlen=REFUSALS_MAX)

    def add(self, entry: Mapping[str, object]) -> None:
        """Take in one entry of the log."""
        if entry.get("verdict") == "refused":
            self._refuse(entry)
        elif entry.get("event") == "connection" and entry.get("verdict") in BEGUN:
            self._begin(entry)
        elif entry.get("event") == "closed":
            self._end(entry)
        elif entry.get("source") == "vault" and entry.get("event") == "request":
            upstream = text(entry, "upstream")
            where = upstream if ":" in upstream else f"{upstream}:443"
            self._count(where, 1, number(entry, "bytes_in"), number(entry, "bytes_out"))

    def destinations(self) -> tuple[Destination, ...]:
        """What most bytes went to or came from first."""
        still = Counter(self._open.values())
        rows = [Destination(where, seen, still[where], sent, got) for where, (seen, sent, got) in self._places.items()]
        return tuple(sorted(rows, key=lambda row: (-row.open, -(row.sent + row.received), -row.seen, row.place)))

    def _begin(self, entry: Mapping[str, object]) -> None:
        # what the vault has is counted by its requests
        where = self._count(place(entry), int(entry.get("verdict") != "brokered"), 0, 0)
        identity = number(entry, "id")
        if identity == 1:
            self._open.clear()  # a relay numbers its connections from 1: the one before it has ended
        if identity and len(self._open) < OPEN_MAX:
            self._open[identity] = where

    def _end(self, entry: Mapping[str, object]) -> None:
        self._open.pop(number(entry, "id"), None)
        self._count(place(entry), 0, number(entry, "sent"), number(entry, "received"))

    def _count(self, where: str, seen: int, sent: int, received: int) -> str:
        if where not in self._places and len(self._places) >= PLACES_MAX:
            where = ELSEWHERE
        row = self._places.setdefault(where, [0, 0, 0])
        for at, value in enumerate((seen, sent, received)):
            row[at] += value
        return where

    def _refuse(self, entry: Mapping[str, object]) -> None:
        count = max(1, number(entry, "count"))
        self.refused += count
        why = text(entry, "reason") or text(entry, "detail")
        self.refusals.append(
            Refusal(
                text(entry, "time"),
                self._container,
                text(entry, "source"),
                subject(entry),
                why,
                text(entry, "allow"),
                count,
                text(entry, "method"),
                url(entry),
            )
        )


def url(entry: Mapping[str, object]) -> str:
    """The URL that a refused entry is about; empty when it is about no request."""
    if entry.get("source") == "vault":
        host = text(entry, "host")
        return f"https://{host}{text(entry, 'path') or '/'}" if host else ""
    host, port = text(entry, "name"), number(entry, "port")
    if not host or entry.get("source") != "shield" and entry.get("source") != "airlock":
        return ""
    scheme = "http" if port == 80 else "https"
    return f"{scheme}://{host}/" if port in (0, 80, 443) else f"{scheme}://{host}:{port}/"


def place(entry: Mapping[str, object]) -> str:
    """`name:port` of an entry about a connection."""
    host = text(entry, "name") or text(entry, "address") or "?"
    port = number(entry, "port")
    return f"{host}:{port}" if port else host


def subject(entry: Mapping[str, object]) -> str:
    """What was refused, in few words."""
    if text(entry, "method"):
        return f"{text(entry, 'method')} {text(entry, 'host') or text(entry, 'provider')}{text(entry, 'path')}"
    if text(entry, "name") or text(entry, "address"):
        return place(entry)
    words = (text(entry, key) for key in ("event", "host", "kind", "ref", "key", "namespace", "user"))
    return " ".join(word for word in words if word)


def text(entry: Mapping[str, object], key: str) -> str:
    """A text of an entry, bounded; empty when it has none."""
    value = entry.get(key)
    return value[:TEXT_MAX] if isinstance(value, str) else ""


def number(entry: Mapping[str, object], key: str) -> int:
    """A count of an entry; 0 when it has none, or what is no count."""
    value = entry.get(key)
    return value if type(value) is int and 0 < value < 1 << 63 else 0
