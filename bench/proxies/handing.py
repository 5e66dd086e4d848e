"""Accepts on a port of the host and hands each connection to a vault, as the airlock's relay does.

`python handing.py PORT SOCKET HOST:PORT`: the listening port, the vault's socket, what the connections lead to.
"""

from __future__ import annotations

import socket
import sys

from terok_host.sidecars.airlock.handover import Gift, Handover
from terok_host.sidecars.kit.accept import Acceptor
from terok_host.sidecars.kit.reactor import Reactor


def main(port: str, path: str, target: str) -> None:
    """Serve until killed."""
    reactor = Reactor()
    handover = Handover(reactor, path)
    name, _, number = target.rpartition(":")
    kept: set[Gift] = set()

    def accepted(client: socket.socket) -> None:
        def done(_why: str) -> None:
            client.close()

        gift = handover.give(client, name, int(number), done, lambda: kept.discard(gift))
        kept.add(gift)

    with socket.create_server(("127.0.0.1", int(port)), backlog=1024) as listener:
        listener.setblocking(False)
        Acceptor(reactor, [listener], accepted).start()
        reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
