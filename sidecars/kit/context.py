"""What a sidecar is given when it starts."""

from __future__ import annotations

import os
import socket
from typing import Any

from ...supervisor import schema
from ...supervisor.ground.layout import Bundle
from .audit import Audit

FIRST_FD = 3
"""The first listening socket; the others follow in the order of the sidecar JSON (as sd_listen_fds(3) does)."""


class Context:
    """The start conditions of one sidecar process.

    Attributes:
        name: which sidecar this is.
        container, scope: the two it serves.
        bundle: the container's state bundle.
        settings: the sidecar's own part of the sidecar JSON.
        idle_seconds: leave with exit code 0 after this long without a connection; 0: stay.
        listeners: what it serves, with the sockets that the supervisor holds open.
        sources: what it only reads (`nflog`, `dnslog`), with their descriptors.
        audit: the container's audit log.
    """

    def __init__(self, wiring: schema.Wiring, sidecar: schema.Sidecar, fds: list[int]) -> None:
        self.name = sidecar.name
        self.container = wiring.container
        self.scope = wiring.scope
        self.bundle: Bundle = wiring.bundle
        self.settings: dict[str, Any] = sidecar.settings
        self.idle_seconds = sidecar.idle_seconds
        held = list(zip(sidecar.listeners, fds, strict=True))
        self.sources = [(listener, fd) for listener, fd in held if listener.kind in schema.SOURCES]
        self.listeners = [
            (listener, socket.socket(fileno=fd)) for listener, fd in held if (listener, fd) not in self.sources
        ]
        self.audit = Audit(wiring.bundle.audit, sidecar.name)
        self.audit.open_old()

    @classmethod
    def receive(cls, arguments: list[str]) -> Context:
        """Build it from `boot.py`'s arguments (name, sidecar JSON) and the inherited descriptors."""
        name, path = arguments
        wiring = schema.load(path)
        sidecar = next(candidate for candidate in wiring.sidecars if candidate.name == name)
        fds = [FIRST_FD + index for index in range(len(sidecar.listeners))]
        for fd in fds:
            os.set_inheritable(fd, False)
        return cls(wiring, sidecar, fds)
