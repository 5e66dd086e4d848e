"""Reads what `terok top` shows: records, audit logs, the vault's counts, the queue, and Podman now and then."""

from __future__ import annotations

import os
import time

from ...supervisor.ground.errors import TerokError
from ...supervisor.ground.layout import Bundle
from ..care import unprotected
from ..care.status import UNPROTECTED, Status, container_status, service_word
from ..kit.alive import containers
from ..queue import items
from .books import Books
from .model import Container, Refusal, Service, Snapshot, Usage, order
from .tail import Tail
from .traffic import Traffic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..care.unprotected import Known
    from ..kit.env import Env

PODMAN_SECONDS, PODMAN_SHARE = 5.0, 50.0
"""Podman is asked again after so many seconds, and after so many times what asking it took."""
REFUSALS_MAX = 200
"""Refusals of all containers that are kept for the view."""


class Watch:
    """Looks again and again, and reads only what is new.

    Args:
        env: whose containers.
        prices: path of a price table that replaces or adds to the shipped one; None: none.
    """

    def __init__(self, env: Env, prices: str | None = None) -> None:
        self._env = env
        self._books = Books(env.layout, prices)
        self._followed: dict[str, tuple[int, Tail, Traffic]] = {}
        self._open: dict[str, Known] = {}
        self._ask_podman_at = 0.0

    def close(self) -> None:
        """Close what is open."""
        self._books.close()

    def look(self, now: float) -> Snapshot:
        """Everything at this moment.

        Args:
            now: Unix time.
        """
        names = containers(self._env.layout)
        self._ask_podman()
        usages = self._books.today(now)
        problems: list[str] = []
        rows: list[Container | None] = []
        for name in names:
            try:
                rows.append(self._container(name, now, usages))
            except (TerokError, OSError, ValueError) as error:  # one that is damaged hides no other
                rows.append(Container(name, "unreadable", troubles=(str(error),)))
                problems.append(f"{name} cannot be read: {error}")
        shown = [row for row in rows if row is not None]
        known = {row.name for row in shown}
        shown += [Container(row.name, UNPROTECTED, fix=self._fix(row)) for row in self._open.values()
                  if row.bundle not in known]  # fmt: skip
        self._forget(names)
        queue, unread = items.waiting(self._env.layout)
        return Snapshot(
            now,
            order(shown),
            tuple(queue),
            self._refusals(),
            (*problems, *(place.why for place in unread), *self._books.problems),
            self._books.prices.currency,
            self._books.prices.date,
        )

    def _container(self, name: str, now: float, usages: dict[str, Usage]) -> Container | None:
        """One container; None when it is not shown: a stopped one of annotations or --rm, or one that just went."""
        bundle = self._env.layout.bundle(name)
        traffic, truncated = self._follow(bundle)
        status = container_status(bundle, now=now)
        if not os.path.isdir(bundle.root):
            return None
        known = self._open.get(name)
        if status["passing"] and known is None:
            return None
        return Container(
            name,
            UNPROTECTED if known is not None else status["state"],
            str(status["network"] or "-"),
            str(status["scope"] or ""),
            status["mode"],
            status["memory"],
            status["supervisor"]["uptime"],
            _services(status),
            tuple(status["troubles"]),
            status["error"] or "",
            usages.get(name, Usage()),
            traffic.refused,
            traffic.destinations(),
            self._fix(known) if known is not None else "",
            truncated,
        )

    def _follow(self, bundle: Bundle) -> tuple[Traffic, bool]:
        """The traffic of a container, with what its log has got since the last look."""
        try:
            inode = os.stat(bundle.root).st_ino
        except OSError:
            inode = 0
        kept = self._followed.get(bundle.name)
        if kept is None or kept[0] != inode:  # new, or another container of the same name
            kept = self._followed[bundle.name] = (inode, Tail(bundle.audit), Traffic(bundle.name))
        _, tail, traffic = kept
        for entry in tail.new():
            traffic.add(entry)
        return traffic, tail.truncated

    def _forget(self, names: list[str]) -> None:
        for name in self._followed.keys() - set(names):
            del self._followed[name]

    def _refusals(self) -> tuple[Refusal, ...]:
        rows = [refusal for _, _, traffic in self._followed.values() for refusal in traffic.refusals]
        return tuple(sorted(rows, key=lambda row: row.time, reverse=True)[:REFUSALS_MAX])

    def _ask_podman(self) -> None:
        """Which containers run without their supervisor: two calls of Podman, so not at every look."""
        began = time.monotonic()
        if began < self._ask_podman_at:
            return
        self._open = {known.bundle: known for known in unprotected.never_supervised(self._env)}
        spent = time.monotonic() - began
        self._ask_podman_at = began + max(PODMAN_SECONDS, spent * PODMAN_SHARE)

    def _fix(self, known: Known) -> str:
        return unprotected.fix(known, self._env)


def _services(status: Status) -> tuple[Service, ...]:
    return tuple(
        Service(row["name"], service_word(row["state"]), row["memory"], row["restarts"]) for row in status["sidecars"]
    )
