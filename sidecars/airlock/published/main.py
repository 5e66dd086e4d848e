"""The process that stands in the container's network and takes the connections to its published ports.

Its listeners are the host's, and every socket that it makes belongs to the container's network: it can connect to
nothing else. It sees no file, and it can connect to the published ports only (Landlock, ABI 4).
"""

from __future__ import annotations

import gc
import signal

from ...kit.audit import Audit
from ...kit.confine import confine
from ...kit.context import Context
from ...kit.reactor import Reactor
from .service import Service


def main(context: Context) -> int:
    """Serve the published ports; returns the process's exit code."""
    reactor = Reactor()
    audit = Audit(context.bundle.audit, "shield")
    audit.open_old()
    inside = [int(port) for port in context.settings["inside"]]
    doors = [(sock, port) for (_, sock), port in zip(context.listeners, inside, strict=True)]
    service = Service(reactor, doors, audit, idle_seconds=context.idle_seconds)
    confine(connect_ports=sorted(set(inside)))
    gc.collect()
    gc.freeze()
    reactor.on_signal(signal.SIGTERM, reactor.stop)
    service.start()
    reactor.run()
    return 0
