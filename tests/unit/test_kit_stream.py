"""The loop and its connections: every transition, what the owner is told, and descriptors that come again."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from itertools import product

import pytest

from terok_host.sidecars.kit import limits, stream
from terok_host.sidecars.kit.reactor import READ, Reactor
from terok_host.sidecars.kit.stream import (
    CLOSE,
    CLOSED,
    CLOSING,
    CUT_OFF,
    END,
    ENDED,
    ENDING,
    EVENTS,
    LOST,
    OPEN,
    REFUSED,
    SENT,
    STATES,
    TRANSITIONS,
    Stream,
)

FLOOD = bytes(4 << 20)


class Owner:
    """Writes down what it is told, and stops the loop each time."""

    def __init__(self, reactor: Reactor) -> None:
        self.reactor = reactor
        self.told: list[str] = []
        self.data = b""

    def received(self, data: bytes) -> None:
        self.data += data
        self._tell("received")

    def ended(self) -> None:
        self._tell("ended")

    def lost(self, error: OSError | None) -> None:
        self._tell(f"lost {type(error).__name__}" if error else "lost")

    def drained(self) -> None:
        self._tell("drained")

    def _tell(self, what: str) -> None:
        self.told.append(what)
        self.reactor.stop()


class Pair:
    """A stream, its owner, and the peer's blocking socket."""

    def __init__(self) -> None:
        self.reactor = Reactor(strict=True)
        ours, self.peer = socket.socketpair()
        ours.setblocking(False)
        self.peer.settimeout(5)
        self.owner = Owner(self.reactor)
        self.stream = Stream(self.reactor, ours, self.owner)
        self._ours = ours

    def told(self, seconds: float = 5) -> list[str]:
        """What the owner hears next; empty when it hears nothing."""
        self.owner.told.clear()
        self.reactor.wait(seconds)
        return self.owner.told

    def take(self, size: int) -> None:
        """Read as the peer, while the loop runs."""
        while size:
            self.reactor.wait(0)
            size -= len(self.peer.recv(min(size, 1 << 20)))

    def close(self) -> None:
        self.stream.abort()
        self.peer.close()
        self.reactor.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def in_state(state: int) -> Pair:
    """A stream that came into a state through what owners, peers and the kernel do."""
    pair = Pair()
    if state in (ENDING, CLOSING):
        pair.stream.write(FLOOD)
        (pair.stream.end if state == ENDING else pair.stream.close)()
    elif state == ENDED:
        pair.stream.end()
    elif state == CUT_OFF:
        pair.stream.hears_out = True
        pair.peer.shutdown(socket.SHUT_RD)
        pair.stream.write(b"x")
    elif state == CLOSED:
        pair.stream.abort()
    assert STATES[state] in repr(pair.stream)
    return pair


@pytest.mark.parametrize(("state", "event"), list(product(range(len(STATES)), range(len(EVENTS)))))
def test_every_pair(state: int, event: int) -> None:
    """Each state meets each event: it leads to the table's state, with that state's effect, or raises."""
    pair = in_state(state)
    after = TRANSITIONS.get((state, event))
    do: dict[int, Callable[[], None]] = {
        END: pair.stream.end,
        CLOSE: pair.stream.close,
        SENT: lambda: pair.stream._step(SENT),
        REFUSED: lambda: pair.stream._step(REFUSED, BrokenPipeError()),
        LOST: pair.stream.abort,
    }
    if after is None:
        assert event in (SENT, REFUSED) and not pair.stream.queued
        with pytest.raises(KeyError):
            do[event]()
        pair.close()
        return
    do[event]()
    if not pair.stream.queued:  # what is ending or closing with nothing to send has got there already
        after = TRANSITIONS[after, SENT] if after in (ENDING, CLOSING) else after
    assert STATES[after] in repr(pair.stream)
    assert pair.stream.dead == (after in (CLOSING, CLOSED))
    if after in (ENDED, CUT_OFF, CLOSED):
        assert after == ENDED or not pair.stream.queued
    if after == CLOSED:
        if state != CLOSED:
            assert pair.told()[-1].startswith("lost")
        assert pair._ours.fileno() == -1
    if after == ENDED and state != ENDING:
        assert pair.peer.recv(1) == b""
    pair.close()


def test_nothing_is_queued_where_nothing_can_be_sent() -> None:
    missing = {pair for pair in product(range(len(STATES)), range(len(EVENTS))) if pair not in TRANSITIONS}
    assert missing == {(state, event) for state in (ENDED, CUT_OFF, CLOSED) for event in (SENT, REFUSED)}
    assert all(TRANSITIONS[state, LOST] == CLOSED for state in range(len(STATES)))


@pytest.mark.parametrize("state", [state for state in range(len(STATES)) if state != OPEN])
def test_nothing_is_written_after_the_end(state: int) -> None:
    pair = in_state(state)
    queued = pair.stream.queued
    pair.stream.write(b"more")
    assert pair.stream.queued == queued
    pair.close()


def test_bytes_both_ways(pair: Pair) -> None:
    pair.stream.write(b"there")
    assert pair.peer.recv(5) == b"there"
    pair.peer.sendall(b"and back")
    assert pair.told() == ["received"] and pair.owner.data == b"and back"
    pair.peer.shutdown(socket.SHUT_WR)
    assert pair.told() == ["ended"]
    pair.stream.write(b"still")
    assert pair.peer.recv(5) == b"still"
    assert pair.told(0.05) == []  # the end is told once


def test_a_full_queue_drains(pair: Pair) -> None:
    pair.stream.write(FLOOD)
    assert pair.stream.full and pair.stream.queued > limits.QUEUE_HIGH
    pair.take(len(FLOOD))
    assert pair.owner.told == ["drained"]
    assert not pair.stream.full and not pair.stream.queued


def test_what_is_queued_is_sent_before_the_end_and_before_the_close() -> None:
    for state in (ENDING, CLOSING):
        pair = in_state(state)
        pair.take(len(FLOOD))
        assert pair.peer.recv(1) == b""
        pair.close()


def test_a_paused_stream_reads_nothing_and_hears_a_reset(pair: Pair) -> None:
    pair.stream.pause()
    pair.peer.sendall(b"x")
    assert pair.told(0.05) == []
    pair.peer.close()
    assert pair.told() == ["lost ConnectionResetError"]


def test_a_held_stream_hears_the_end_alone(pair: Pair) -> None:
    pair.stream.hold()
    pair.peer.sendall(b"x")
    assert pair.told(0.05) == []
    pair.peer.shutdown(socket.SHUT_WR)
    assert pair.told() == ["ended"]
    assert pair.told(0.05) == []


def test_resume_reads_what_came_meanwhile(pair: Pair) -> None:
    for stop_reading in (pair.stream.pause, pair.stream.hold):
        stop_reading()
        pair.peer.sendall(b"x")
        assert pair.told(0.05) == []
        pair.stream.resume()
        assert pair.told() == ["received"]


def test_what_the_peer_said_before_it_left_is_still_read() -> None:
    pair = in_state(CUT_OFF)
    pair.peer.sendall(b"too much")
    assert pair.told() == ["received"] and pair.owner.data == b"too much"
    pair.peer.close()
    assert pair.told() == ["lost BrokenPipeError"]
    pair.close()


def test_a_refused_write_ends_a_stream_that_does_not_hear_out(pair: Pair) -> None:
    pair.peer.close()
    pair.stream.write(b"x")
    assert pair.owner.told == []  # never inside write
    assert pair.told() == ["lost BrokenPipeError"]


def test_bulk_reads_grow_and_small_ones_shrink(pair: Pair) -> None:
    for size in (limits.READ_MIN, limits.READ_MIN * 2):
        assert pair.stream._size == size
        pair.peer.sendall(bytes(size))
        pair.told()
    pair.peer.sendall(b"x")
    pair.told()
    assert pair.stream._size == limits.READ_MIN


def test_an_event_of_a_closed_descriptor_does_not_reach_the_one_that_got_its_number() -> None:
    """Two descriptors are ready in one turn; the first one's callback closes the second and opens another there."""
    reactor = Reactor(strict=True)
    readers, writers = zip(*(os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) for _ in range(2)), strict=True)
    opened: list[int] = []
    calls: list[int] = []

    def first(_events: int) -> None:
        if not opened:
            number = readers[1]
            reactor.forget(number)
            os.close(number)
            new_reader, new_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            assert new_reader == number
            opened.extend((new_reader, new_writer))
            reactor.watch(new_reader, READ, lambda _events: calls.append(new_reader))
            reactor.later(0, reactor.stop)

    for reader, writer in zip(readers, writers, strict=True):
        reactor.watch(reader, READ, first)
        os.write(writer, b"x")
    reactor.run()
    assert opened and not calls
    reactor.close()
    for fd in (readers[0], *writers, *opened):
        os.close(fd)


def test_a_callback_that_raises(capfd: pytest.CaptureFixture[str]) -> None:
    for strict in (False, True):
        reactor = Reactor(strict=strict)
        reactor.soon(lambda: [][0])
        reactor.later(0.01, reactor.stop)
        if strict:
            with pytest.raises(IndexError):
                reactor.run()
        else:
            reactor.run()
            assert "IndexError" in capfd.readouterr().err
        reactor.close()


def test_a_wait_is_bounded_and_can_be_ended() -> None:
    reactor = Reactor()
    assert not reactor.wait(0.01)
    reactor.soon(reactor.stop)
    assert reactor.wait(60)
    assert not reactor.wait(0.01)  # the first wait's timer was cancelled, not left behind
    assert not [timer for timer in reactor._timers if timer.callback is not None]
    reactor.close()


def test_unowned_streams_ignore_what_comes() -> None:
    owner = stream.UNOWNED
    owner.received(b"x")
    owner.ended()
    owner.drained()
    owner.lost(None)
