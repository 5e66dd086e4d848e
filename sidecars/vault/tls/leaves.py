"""The server contexts of a container's brokered hosts: one leaf each, made when it is first asked for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ....supervisor.ground.errors import TerokError
from ...kit.refusal import Refusal
from ...kit.tls.layer import server_context
from .authority import issue_leaf, make_authority

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from ...store.records import Authority

CONTEXTS_MAX = 64
"""A container that asks for more hosts than these in turn has leaves made again; each is about a millisecond's work."""
EARLY_SECONDS = 86400.0
"""A leaf is replaced so long before its end: a connection checks it once and may last."""


def warm() -> None:
    """Make one leaf and throw it away: what is loaded on the first use cannot be loaded once Landlock is in force."""
    server_context(issue_leaf(make_authority("warm", ["warm.invalid"]), "warm.invalid").pem, "warm.invalid")


class Leaves:
    """Gives a TLS context for each host.

    Args:
        authority: reads the authority from the store; None: there is none. Raises TerokError (LockedError among them).
        spare: private key and certificate for all hosts, PEM; empty: none. It serves while the vault is locked.
    """

    def __init__(self, authority: Callable[[], Authority | None], spare: bytes) -> None:
        self._open, self._spare = authority, spare
        self._authority: Authority | None = None
        self._contexts: dict[str, tuple[float, ssl.SSLContext]] = {}
        self._spares: dict[str, ssl.SSLContext] = {}

    def __repr__(self) -> str:
        return f"<Leaves {sorted(self._contexts)}>"

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
            self._contexts.clear()

    def context(self, host: str) -> ssl.SSLContext | Refusal:
        """The context for a host, or why there is none."""
        expires, context = self._contexts.get(host, (0.0, None))
        if context is not None and time.time() < expires - EARLY_SECONDS:
            return context
        try:
            if self._authority is None:
                self._authority = self._open()
            if self._authority is None:
                why = "The container has no certificate authority."
                return Refusal(503, "no-authority", why, "prepare the container again")
            leaf = issue_leaf(self._authority, host)
        except TerokError as error:
            return self._with_the_spare(host, error)
        if len(self._contexts) >= CONTEXTS_MAX:
            del self._contexts[next(iter(self._contexts))]
        context = server_context(leaf.pem, host)
        self._contexts[host] = leaf.expires, context
        return context

    def _with_the_spare(self, host: str, error: TerokError) -> ssl.SSLContext | Refusal:
        """Requests are refused all the same, but inside TLS, where the client can read why."""
        if not self._spare:
            return Refusal(503, "locked", error.what, error.fix)
        context = self._spares.get(host)
        if context is None:
            if len(self._spares) >= CONTEXTS_MAX:
                self._spares.clear()
            try:
                context = self._spares[host] = server_context(self._spare, host)
            except OSError:
                return Refusal(503, "locked", error.what, error.fix)
        return context
