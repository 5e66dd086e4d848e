"""Runs the airlock's relay behind given listeners: `python relay.py POLICY AUDIT FD...`. For tests and measurements."""

from __future__ import annotations

import resource
import signal
import socket
import sys

from terok_host.sidecars.airlock.service import Service
from terok_host.sidecars.kit.audit import Audit
from terok_host.sidecars.kit.reactor import Reactor


def main(policy: str, audit: str, limit: str, *fds: str) -> None:
    """Serve until SIGTERM; `limit` is how many descriptors it may have (0: as many as it can)."""
    if int(limit):
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(limit), int(limit)))
    reactor = Reactor()
    listeners = [socket.socket(fileno=int(fd)) for fd in fds]
    service = Service(reactor, listeners, policy, Audit(audit, "shield"), container="box")
    reactor.on_signal(signal.SIGTERM, reactor.stop)
    reactor.on_signal(signal.SIGHUP, service.changed)
    service.start()
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
