"""The supervisor's event loop: descriptors, timers and signals on one epoll; it sleeps until one of them has news."""

from __future__ import annotations

import heapq
import os
import select
import time

from .quick import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Loop:
    """Calls a handler when its descriptor is readable, its time has come or its signal has arrived."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._signals: dict[int, Callable[[], None]] = {}
        self._count = 0
        self._stopped = False
        # a Python signal handler alone would not end epoll_wait(2): it is resumed after EINTR (PEP 475)
        self._wakeup, self._wakeup_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._wakeup_write, warn_on_full_buffer=False)
        self.watch(self._wakeup, self._on_wakeup)

    def watch(self, fd: int, handler: Callable[[], None]) -> None:
        """Call `handler` whenever `fd` is readable (level-triggered)."""
        self._handlers[fd] = handler
        self._epoll.register(fd, select.EPOLLIN)

    def forget(self, fd: int) -> None:
        """Stop watching `fd`; harmless when it is not watched."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def after(self, seconds: float, handler: Callable[[], None]) -> None:
        """Call `handler` once, `seconds` from now."""
        self._count += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._count, handler))

    def on_signal(self, number: int, handler: Callable[[], None]) -> None:
        """Call `handler` from the loop when the signal arrives."""
        self._signals[number] = handler
        signal.signal(number, lambda *_: None)

    def stop(self) -> None:
        """Make `run` return after the handlers of this round."""
        self._stopped = True

    def run(self) -> None:
        """Wait and dispatch until `stop`."""
        while not self._stopped:
            wait = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else -1
            for fd, _ in self._epoll.poll(wait):
                handler = self._handlers.get(fd)
                if handler is not None:
                    handler()
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()

    def close(self) -> None:
        """Close the loop's own descriptors."""
        signal.set_wakeup_fd(-1)
        for fd in (self._wakeup, self._wakeup_write):
            os.close(fd)
        self._epoll.close()

    def _on_wakeup(self) -> None:
        for number in os.read(self._wakeup, 256):
            handler = self._signals.get(number)
            if handler is not None:
                handler()
