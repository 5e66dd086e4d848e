"""Takes back later what was granted for a time: `python -I -S later.py SECONDS BUNDLE`.

It waits in a small process of its own, which ends with the container, since every start begins closed. When it is
killed, nothing stays open for good: the kernel ends a bypass by itself, at the second (here it is only tidied up
after), and an allowance ends with the next verb or the next start.
"""

from __future__ import annotations

import os
import sys
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...supervisor.ground.layout import Bundle


def later(seconds: float, bundle: Bundle) -> None:
    """Start a process that takes back what is over in `seconds`, and do not wait for it.

    Args:
        seconds: from now; the process looks a second later.
        bundle: the running container's state bundle.
    """
    from ...supervisor.ground import process

    argv = [sys.executable, "-I", "-S", os.path.abspath(__file__), f"{seconds + 1:g}", bundle.root]
    process.spawn(argv, new_session=True)


def main() -> int:
    """Wait, then close what is over; returns the exit code."""
    package = types.ModuleType("terok_host")
    package.__path__ = [os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))]
    sys.modules["terok_host"] = package
    from terok_host.supervisor.ground.layout import Bundle

    seconds, bundle = float(sys.argv[1]), Bundle(sys.argv[2])
    if _container_ends(bundle, seconds):
        return 0
    from terok_host.sidecars.shield import live
    from terok_host.supervisor.ground.errors import TerokError

    try:
        running = live.Running.find(bundle)
        if running is not None:
            live.lapse(bundle, running)
    except TerokError as error:
        return error.code
    return 0


def _container_ends(bundle: Bundle, seconds: float) -> bool:
    from terok_host.supervisor import record
    from terok_host.supervisor.ground import pids

    known = record.read(bundle.record)
    fd = known.container.open() if known and known.container else None
    return fd is None or pids.wait_gone(fd, seconds)


if __name__ == "__main__":
    sys.exit(main())
