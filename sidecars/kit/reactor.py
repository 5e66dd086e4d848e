"""The event loop: epoll, timers, and a door for the resolver's threads.

Rules of this file:
- callbacks run one after the other and never block;
- a descriptor that was forgotten in this turn is not served in it, though a new one may have its number by then;
- nothing wakes the process while nothing happens;
- `now` is read once a turn, so asking for the time costs nothing.
"""

from __future__ import annotations

import os
import signal
import sys
from _thread import allocate_lock, start_new_thread
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, epoll
from time import monotonic

READ, WRITE, HANGUP, ERROR = EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR
READ_HANGUP = EPOLLRDHUP
_EVENTS_A_TURN = 256


class Timer:
    """A callback at a moment; `cancel` makes it do nothing."""

    __slots__ = ("when", "callback")

    def __init__(self, when: float, callback: Callable[[], None] | None) -> None:
        self.when, self.callback = when, callback

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when

    def cancel(self) -> None:
        """Forget the callback."""
        self.callback = None


class Reactor:
    """Runs callbacks when descriptors are ready, when their time comes, or when a thread is done.

    Args:
        strict: a callback that raises ends `run` with its exception. Otherwise it is reported to stderr and the loop
            goes on: one connection's fault does not end the others.

    Attributes:
        now: seconds on the monotonic clock, as of this turn.
        turn: counts the turns.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self.now = monotonic()
        self.turn = 0
        self._epoll = epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._forgotten: set[int] = set()
        self._timers: list[Timer] = []
        self._soon: deque[Callable[[], None]] = deque()
        self._done: deque[Callable[[], None]] = deque()
        self._lock = allocate_lock()
        self._running = False
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.watch(self._wake_read, READ, self._woken)

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Call `handler(events)` whenever the descriptor is ready (level-triggered, epoll(7))."""
        self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def modify(self, fd: int, events: int) -> None:
        """Wait for other events on a watched descriptor; hang-ups and errors are always told."""
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Stop watching; before the descriptor is closed."""
        del self._handlers[fd]
        self._epoll.unregister(fd)
        self._forgotten.add(fd)

    def later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back once, `seconds` from now."""
        timer = Timer(self.now + seconds, callback)
        heappush(self._timers, timer)
        return timer

    def soon(self, callback: Callable[[], None]) -> None:
        """Call back in this turn, when what runs now has returned."""
        self._soon.append(callback)

    def in_thread(self, work: Callable[[], Callable[[], None]]) -> None:
        """Run `work` in a thread of its own; what it returns is called here. It must not raise."""

        def run() -> None:
            done = work()
            with self._lock:
                self._done.append(done)
            try:
                os.write(self._wake_write, b"\0")
            except BlockingIOError:
                pass  # the pipe is full of wake-ups already

        start_new_thread(run, ())

    def on_signal(self, number: int, callback: Callable[[], None]) -> None:
        """Call back in the loop when the signal arrives."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(number, lambda _number, _frame: self._soon.append(callback))

    def _woken(self, _events: int) -> None:
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            pass
        with self._lock:
            done, self._done = self._done, deque()
        self._soon.extend(done)

    def stop(self) -> None:
        """Return from `run` or `wait` after this turn."""
        self._running = False

    def run(self) -> None:
        """Serve until `stop`."""
        self._running = True
        handlers, forgotten = self._handlers, self._forgotten
        soon, timers, poll = self._soon, self._timers, self._epoll.poll
        while self._running:
            while timers and timers[0].callback is None:
                heappop(timers)  # cancelled: nothing to wake up for
            timeout = 0.0 if soon else -1.0
            if timers and not soon:
                timeout = max(0.0, timers[0].when - monotonic())
            events = poll(timeout, _EVENTS_A_TURN)
            self.now = monotonic()
            self.turn += 1
            if forgotten:
                forgotten.clear()
            for fd, mask in events:
                # The kernel collected these events before the first callback ran. If one closed this descriptor and
                # another accepted a connection that got its number, the event is not the newcomer's.
                handler = handlers.get(fd)
                if handler is None or (forgotten and fd in forgotten):
                    continue
                try:
                    handler(mask)
                except Exception:  # noqa: BLE001 - one connection's fault must not end the others
                    self._failed()
            while timers and timers[0].when <= self.now:
                self._call(heappop(timers).callback)
            if soon:
                for _ in range(len(soon)):  # what these add has its turn after the descriptors had theirs
                    self._call(soon.popleft())

    def wait(self, seconds: float) -> bool:
        """Serve until `stop`, or for `seconds`; whether it was stopped. For code that does one thing at a time."""
        self.now = monotonic()  # whatever came before this call may have taken long
        late = False

        def end() -> None:
            nonlocal late
            late = True
            self.stop()

        timer = self.later(max(0.0, seconds), end)
        self.run()
        timer.cancel()
        return not late

    def close(self) -> None:
        """Close the loop's own descriptors; what is watched belongs to others."""
        self._epoll.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _call(self, callback: Callable[[], None] | None) -> None:
        if callback is None:
            return
        try:
            callback()
        except Exception:  # noqa: BLE001 - one connection's fault must not end the others
            self._failed()

    def _failed(self) -> None:
        """In an `except`: report what was raised, without `traceback`, which costs a megabyte; or let it go on."""
        if self._strict:
            raise
        sys.excepthook(*sys.exc_info())
