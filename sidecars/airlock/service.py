"""The relay of one container: accepts, keeps the policy up to date, writes the audit log."""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from collections.abc import Sequence

from ..kit.accept import Acceptor, Idle
from ..kit.addresses import own_addresses
from ..kit.audit import Audit, Lenient
from ..kit.dial import Dialer, Dialling
from ..kit.reactor import Reactor, Timer
from ..shield.reader.window import Window
from .asking import Asking
from .descriptors import connections_max
from .flow import Flow
from .handover import Handover
from .notify import Notifier
from .pipes import Pipes
from .policy import Policy, Proof, Route, Verdict, decode

_SOL_IPV6, _ORIGINAL_DST = 41, 80
_NOTE_SECONDS = 10.0
_OWN_SECONDS = 1.0
"""How long the list of the host's own addresses is used."""


class Service:
    """Serves the listeners until it is idle.

    Args:
        reactor: the loop.
        listeners: where the redirect rules lead, IPv4 and IPv6.
        policy_path: `policy.json`; read again when it has changed.
        audit: the container's log.
        told: descriptor that gets one byte after each policy that is in force; -1: no process waits.
        idle_seconds: leave after this long without a connection; 0: stay.
        brokered: hosts and ports whose connections go to the vault.
        handover: the vault's socket for them.
        pending, decisions: files of the questions about unknown names, and of the operator's answers.
    """

    def __init__(
        self,
        reactor: Reactor,
        listeners: Sequence[socket.socket],
        policy_path: str,
        audit: Audit,
        *,
        container: str,
        told: int = -1,
        idle_seconds: int = 0,
        dialer: Dialling | None = None,
        brokered: frozenset[tuple[str, int]] = frozenset(),
        handover: str = "",
        pending: str = "",
        decisions: str = "",
        notifier: Notifier | None = None,
    ) -> None:
        self.reactor, self.pipes = reactor, Pipes(reactor)
        self.dialer: Dialling = dialer or Dialer(reactor)
        self.handover = Handover(reactor, handover)
        self._write = Lenient(audit, reactor, "airlock").write
        self.asking = Asking(reactor, pending, decisions, self.clock, self._write, notifier)
        self._brokered = brokered
        self.policy = Policy(container)  # nothing is allowed until a policy has been read
        self._acceptor = Acceptor(reactor, listeners, self._accepted)
        self._path, self._told = policy_path, told
        self._flows: set[Flow] = set()
        self._count = 0
        self._version: tuple[int, int] | None = None
        self._refusals: Window[tuple[str, str, int, Verdict]] = Window()
        self._ender: Timer | None = None
        self._idle = Idle(reactor, idle_seconds, lambda: bool(self._flows))
        self._own: frozenset[str] = frozenset()
        self._own_until = 0.0
        self._max = connections_max()

    @staticmethod
    def clock() -> float:
        """Seconds since the epoch: allowances for a time are written so."""
        return time.time()

    def own(self) -> frozenset[str]:
        """The host's own addresses, at most a second old; raises OSError when the kernel does not tell."""
        if self.reactor.now >= self._own_until:
            self._own = own_addresses()
            self._own_until = self.reactor.now + _OWN_SECONDS
        return self._own

    def dialable(self, address: str, port: int) -> str:
        """Why the relay does not connect to an address that an allowed name has; empty: it may."""
        try:
            own = self.own()
        except OSError as error:
            return f"the host's own addresses are not known ({error.strerror})"
        return self.policy.dialable(address, port, self.clock(), own)

    # --- the policy ------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Read the policy again if its file is another one; a damaged one allows nothing."""
        try:
            info = os.stat(self._path)
            version = (info.st_ino, info.st_mtime_ns)
            if version == self._version:
                return
            with open(self._path, "rb") as file:
                self.policy = decode(file.read(), self._brokered)
            self._version = version
        except (OSError, ValueError) as error:
            self.policy, self._version = Policy(self.policy.container), None
            print(f"airlock: no policy, so nothing is allowed: {error}", file=sys.stderr)
        for flow in list(self._flows):
            flow.judge_again()
        self._time_next_end()

    def changed(self) -> None:
        """A verb has changed the policy and waits for it to be in force."""
        self.look()
        self.asking.look()
        if self._told >= 0:
            try:
                os.write(self._told, self.policy.generation.to_bytes(8, "big"))
            except BlockingIOError:
                pass  # full: the reader is not reading

    def _time_next_end(self) -> None:
        if self._ender is not None:
            self._ender.cancel()
            self._ender = None
        end = self.policy.next_end(self.clock())
        if end is not None:
            self._ender = self.reactor.later(max(0.0, end - self.clock()) + 0.01, self._something_ended)

    def _something_ended(self) -> None:
        for flow in list(self._flows):
            flow.judge_again()
        self._time_next_end()

    # --- connections ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Accept from now on."""
        self.look()
        self._acceptor.start()
        self._idle.start()

    def _accepted(self, client: socket.socket) -> None:
        self.look()
        destination = original_destination(client)
        if destination in (client.getsockname()[:2], ("", 0)):
            route: Route | Verdict = Verdict(False, "the relay's own port is no destination")
        else:
            route = self.policy.route(*destination, self.clock())
        if isinstance(route, Verdict):
            refused = Route(destination[1], Proof.NONE, address=destination[0])
            self.refused(self.policy.names.get(destination[0], ""), refused, route)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            return
        flow = Flow(self, client, route)
        self._flows.add(flow)
        if len(self._flows) >= self._max:
            self._acceptor.stop()
        flow.start()

    def left(self, flow: Flow) -> None:
        """A connection is gone."""
        self._flows.discard(flow)
        if not self._flows:
            self._idle.begins()
        if len(self._flows) < self._max:
            self._acceptor.start()

    # --- the log --------------------------------------------------------------------------------------------

    def opened(self, flow: Flow) -> int:
        """Write that a connection begins; returns its number."""
        self._count += 1
        verdict = flow.verdict
        self._write("connection", verdict=verdict.word, **self._place(flow), id=self._count, by=verdict.why)
        return self._count

    def handed(self, flow: Flow) -> int:
        """Write that the vault has a connection; its requests stand in the vault's lines. Returns its number."""
        self._count += 1
        self._write("connection", verdict="brokered", **self._place(flow), id=self._count, by=flow.verdict.why)
        return self._count

    def closed(self, flow: Flow, number: int, moved: list[int], seconds: float, why: str) -> None:
        """Write that a connection has ended; `moved`: bytes sent and received, where this process carried them."""
        fields: dict[str, object] = dict(zip(("sent", "received"), moved, strict=False))
        if why:
            fields["reason"] = why
        self._write("closed", **self._place(flow), id=number, **fields, seconds=seconds)

    def failed(self, flow: Flow, why: str) -> None:
        """Write that an allowed connection could not be made."""
        self._write("connection", verdict="failed", **self._place(flow), reason=why)

    def refused(self, name: str, route: Route, verdict: Verdict) -> None:
        """Write a refusal; repeats within some seconds are counted."""
        key = (name or route.pattern, route.address, route.port, verdict)
        if self._refusals.add(key, self.reactor.now):
            self._write_refusal(key, 1)
            self.reactor.later(_NOTE_SECONDS, self._write_repeats)

    def _write_repeats(self) -> None:
        for key, count in self._refusals.due(self.reactor.now):
            self._write_refusal(key, count)
        missed = self._refusals.take_overflow()
        if missed:
            self._write("overflow", count=missed, reason="more different refusals at once than are told apart")

    def _write_refusal(self, key: tuple[str, str, int, Verdict], count: int) -> None:
        name, address, port, verdict = key
        place = {"name": name or None, "address": address, "port": port, "proto": "tcp"}
        allow = {"allow": verdict.allow} if verdict.allow else {}
        self._write("connection", verdict="refused", **place, reason=verdict.why, count=count, **allow)

    @staticmethod
    def _place(flow: Flow) -> dict[str, object]:
        place: dict[str, object] = {
            "name": flow.name or None,
            "address": flow.address,
            "port": flow.route.port,
            "proto": "tcp",
        }
        return {**place, "via": flow.via} if flow.via else place


def original_destination(client: socket.socket) -> tuple[str, int]:
    """Where the client wanted to go before the redirect rule (SO_ORIGINAL_DST); ("", 0): the kernel does not know."""
    try:
        if client.family == socket.AF_INET6:
            raw = client.getsockopt(_SOL_IPV6, _ORIGINAL_DST, 28)
            return socket.inet_ntop(socket.AF_INET6, raw[8:24]), struct.unpack_from("!H", raw, 2)[0]
        raw = client.getsockopt(socket.SOL_IP, _ORIGINAL_DST, 16)
        return socket.inet_ntop(socket.AF_INET, raw[4:8]), struct.unpack_from("!H", raw, 2)[0]
    except OSError:
        return "", 0
