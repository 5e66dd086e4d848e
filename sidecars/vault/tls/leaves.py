"""The server contexts of a container's brokered hosts: one leaf each, made when it is first asked for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ....supervisor.ground.errors import TerokError
from ...kit.refusal import Refusal
from ...kit.tls.layer import server_context
from .leaf import Leaf, issue_leaf
from .leaf import warm as make_one

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from ...store.records import Authority

CONTEXTS_MAX = 64
"""A container that asks for more hosts than these in turn has leaves made again; each is about a millisecond's work."""
HANDSHAKES_MAX = 500
"""After so many a context is made anew, with the same leaf: it keeps the session of every client of TLS 1.2 to resume
it (SSL_CTX_set_session_cache_mode(3)), up to 20,000, and Python cannot switch that off."""
EARLY_SECONDS = 86400.0
"""A leaf is replaced so long before its end: a connection checks it once and may last."""


def warm() -> None:
    """Make one leaf and throw it away: what is loaded on the first use cannot be loaded once Landlock is in force."""
    server_context(make_one(), "warm.invalid")


class _Held:
    """A leaf in use."""

    __slots__ = ("leaf", "context", "uses")

    def __init__(self, leaf: Leaf) -> None:
        self.leaf, self.uses = leaf, 0
        self.context = server_context(leaf.pem, leaf.host)

    def use(self) -> ssl.SSLContext:
        self.uses += 1
        if self.uses > HANDSHAKES_MAX:
            self.uses, self.context = 1, server_context(self.leaf.pem, self.leaf.host)
        return self.context


class Leaves:
    """Gives a TLS context for each host.

    Args:
        authority: reads the authority from the store; None: there is none. Raises TerokError (LockedError among them).
        spare: private key and certificate for all hosts, PEM; empty: none. It serves while the vault is locked.
    """

    def __init__(self, authority: Callable[[], Authority | None], spare: bytes) -> None:
        self._open, self._spare = authority, spare
        self._authority: Authority | None = None
        self._held: dict[str, _Held] = {}
        self._spares: dict[str, _Held] = {}

    def __repr__(self) -> str:
        return f"<Leaves {sorted(self._held)}>"

    def renew(self) -> None:
        """The store has changed: an authority that is gone must sign nothing more, one that is locked may go on."""
        if self._authority is None:
            return
        try:
            current = self._open()
        except TerokError:
            return
        if current != self._authority:
            self._authority = current
            self._held.clear()

    def context(self, host: str) -> ssl.SSLContext | Refusal:
        """The context for a host, or why there is none."""
        held = self._held.get(host)
        if held is not None and time.time() < held.leaf.expires - EARLY_SECONDS:
            return held.use()
        try:
            if self._authority is None:
                self._authority = self._open()
            if self._authority is None:
                why = "The container has no certificate authority."
                return Refusal(503, "no-authority", why, "prepare the container again")
            leaf = issue_leaf(self._authority, host)
        except TerokError as error:
            return self._with_the_spare(host, error)
        return _keep(self._held, leaf)

    def _with_the_spare(self, host: str, error: TerokError) -> ssl.SSLContext | Refusal:
        """Requests are refused all the same, but inside TLS, where the client can read why."""
        if not self._spare:
            return Refusal(503, "locked", error.what, error.fix)
        held = self._spares.get(host)
        try:
            return held.use() if held is not None else _keep(self._spares, Leaf(host, self._spare, 0.0))
        except OSError:  # the file is damaged
            return Refusal(503, "locked", error.what, error.fix)


def _keep(into: dict[str, _Held], leaf: Leaf) -> ssl.SSLContext:
    if len(into) >= CONTEXTS_MAX:
        del into[next(iter(into))]
    into[leaf.host] = _Held(leaf)
    return into[leaf.host].use()
