"""HTTP/2 connections to upstreams (RFC 9113): frames in and out, streams, windows, and their ends.

Imported only by a vault with a route that asks for it, before the process confines itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes

from ...kit import limits
from .http2_stream import Pairs, Stream

if TYPE_CHECKING:
    from ...kit.dial import Endpoint
    from ...kit.reactor import Reactor
    from ...kit.stream import Wire
    from .pool import Taker

_GOAWAY = 7
_HEAD = 9
_GOAWAY_MAX = 16 << 10
_WINDOW_START = 65535
_WINDOW_MAX = (1 << 31) - 1


class GoawayFilter:
    """Takes the GOAWAY frames out of what an upstream sends.

    The library takes one for the end of the connection, but the streams up to the one that it names go on
    (RFC 9113, section 6.8).

    Args:
        said: called with the last stream that the upstream will answer.
    """

    def __init__(self, said: Callable[[int], None]) -> None:
        self._said = said
        self._left = 0
        self._part = b""

    def feed(self, data: bytes) -> bytes:
        """The bytes for the library. Raises ValueError for a GOAWAY of a size that nobody needs."""
        data, self._part = self._part + data, b""
        at = self._left
        kept: list[bytes] = []
        start = 0
        while at + _HEAD <= len(data):
            size = _HEAD + int.from_bytes(data[at : at + 3], "big")
            if data[at + 3] == _GOAWAY:
                if not _HEAD + 8 <= size <= _GOAWAY_MAX:
                    raise ValueError("GOAWAY")
                if at + size > len(data):
                    break
                kept.append(data[start:at])
                self._said(int.from_bytes(data[at + 9 : at + 13], "big") & _WINDOW_MAX)
                start = at + size
            at += size
        if at >= len(data):
            self._left = at - len(data)
            kept.append(data[start:])
        else:
            self._left = 0
            self._part = data[at:]
            kept.append(data[start:at])
        return b"".join(kept)


class Session:
    """One connection, as the owner of its wire.

    Args:
        reactor: the loop.
        wire: TLS, with `h2` agreed on.
        endpoint: where it leads.
        changed: called with the session when it can take more streams, or none any more.

    Attributes:
        leaving: takes no new stream.
        since: when its last stream ended.
    """

    def __init__(self, reactor: Reactor, wire: Wire, endpoint: Endpoint, changed: Callable[[Session], None]) -> None:
        self._reactor, self._wire, self.endpoint, self._changed = reactor, wire, endpoint, changed
        config = H2Configuration(
            client_side=True, header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self._conn = conn = H2Connection(config)
        conn.local_settings.update(
            {SettingCodes.ENABLE_PUSH: 0, SettingCodes.INITIAL_WINDOW_SIZE: int(limits.STREAM_WINDOW)}
        )
        conn.local_settings.acknowledge()  # our first SETTINGS hold for every stream from its beginning
        conn.initiate_connection()
        # only a stream's own window holds it back: one that nobody reads must not stop the others
        conn.increment_flow_control_window(_WINDOW_MAX - _WINDOW_START)
        self._filter = GoawayFilter(self._said_goodbye)
        self._streams: dict[int, Stream] = {}
        self._promised: set[Stream] = set()
        self._pending: deque[Stream] = deque()
        self._touched: dict[Stream, None] = {}
        self._ready = self._served = self.leaving = self._dead = False
        self.since = reactor.now
        wire.owner = self
        wire.resume()
        self.flush()
        self._patience = reactor.later(limits.CONNECT_SECONDS, self._silent)

    def __repr__(self) -> str:
        return f"<Session {self.endpoint.authority} streams={len(self._streams)} leaving={self.leaving}>"

    @property
    def now(self) -> float:
        """The loop's time."""
        return self._reactor.now

    @property
    def busy(self) -> int:
        """Streams that are open or about to be."""
        return len(self._streams) + len(self._promised)

    @property
    def room(self) -> int:
        """How many more streams it takes now; one until the upstream has said how many it serves."""
        if self.leaving:
            return 0
        if not self._ready:
            return 0 if self._served else 1
        return min(int(limits.STREAMS_MAX), self._conn.remote_settings.max_concurrent_streams) - self.busy

    @property
    def settling(self) -> bool:
        """Whether it is still to say how many streams it serves."""
        return not self._ready and not self.leaving

    def carry(self, taker: Taker) -> None:
        """Give the taker a stream."""
        stream = Stream(self, self.endpoint, taker, used=self._served)
        self._served = True
        self._promised.add(stream)
        taker.connected(stream)

    # --- for streams ---

    def open(self, stream: Stream, fields: Pairs, *, end: bool) -> None:
        """Send a request's head; `end`: it is the whole request."""
        self._promised.discard(stream)
        try:
            if self.leaving:
                raise ConnectionResetError("the upstream takes no more requests on this connection")
            number = self._conn.get_next_available_stream_id()
            self._conn.send_headers(number, fields, end_stream=end)
        except (H2Error, OSError) as error:
            stream.fail(ConnectionResetError(str(error)), again=True)
            self._reactor.soon(stream.deliver)
            return
        stream.number, stream.sent = number, end
        self._streams[number] = stream

    def push(self, stream: Stream) -> None:
        """The stream has something to send."""
        if stream.number and not stream.sent and stream not in self._pending:
            self._pending.append(stream)
        self._pump()

    def _pump(self) -> None:
        """Send what windows and the wire take, a frame of each stream in turn."""
        pending, blocked = self._pending, []
        conn = self._conn
        while pending and not self._wire.full and not self._dead:
            stream = pending.popleft()
            if stream.sent or stream.number not in self._streams:
                continue
            try:
                if stream.out:
                    size = min(conn.local_flow_control_window(stream.number), conn.max_outbound_frame_size)
                    if size <= 0:
                        blocked.append(stream)
                        continue
                    piece = stream.take(size)
                    stream.sent = stream.complete and not stream.out
                    conn.send_data(stream.number, piece, end_stream=stream.sent)
                    stream.active = self.now
                elif stream.complete:
                    stream.sent = True
                    conn.end_stream(stream.number)
            except H2Error as error:
                stream.fail(ConnectionResetError(str(error)))
                self._reactor.soon(stream.deliver)
                continue
            if stream.out or not stream.sent and stream.complete:
                pending.append(stream)
            self._reactor.soon(stream.relieved)
            self.flush()
        pending.extend(blocked)
        self.flush()

    def flush(self) -> None:
        """Write what the library has ready."""
        if not self._dead:
            data = self._conn.data_to_send()
            if data:
                self._wire.write(data)

    def acknowledge(self, number: int, size: int) -> None:
        """The exchange has taken so many bytes; `flush` tells the upstream."""
        if not self._dead:
            try:
                self._conn.acknowledge_received_data(size, number)
            except H2Error:
                pass  # the connection is about to end

    def cancel(self, number: int) -> None:
        """Nobody wants the stream any more."""
        if not self._dead:
            try:
                self._conn.reset_stream(number, ErrorCodes.CANCEL)
            except H2Error:
                pass  # both sides have closed it
            self.flush()

    def cancel_unsent(self, stream: Stream) -> None:
        """The answer is over while the request is not."""
        if not stream.sent:
            self.cancel(stream.number)

    def gone(self, stream: Stream) -> None:
        """The stream is over."""
        self._promised.discard(stream)
        self._streams.pop(stream.number, None)
        if not self.busy:
            self.since = self.now
            if self.leaving:
                self._wire.close()
        if not self.leaving:
            self._changed(self)

    # --- the wire's owner ---

    def received(self, data: bytes) -> None:
        """Frames: translate all of them, then hand on to each stream what came for it."""
        if self._dead:
            return
        try:
            for event in self._conn.receive_data(self._filter.feed(data)):
                self._handle(event)
        except (H2Error, ValueError) as error:
            self.flush()
            self._lose(ConnectionAbortedError(f"HTTP/2: {error}"))
            return
        touched, self._touched = self._touched, {}
        for stream in touched:
            stream.deliver()
        self._pump()
        if self._wire.queued > limits.CONTROL_MAX:
            self._lose(ConnectionAbortedError("HTTP/2: the upstream does not read"))
        elif self.leaving and not self.busy:
            self._wire.close()

    def _handle(self, event: Event) -> None:
        if isinstance(event, RemoteSettingsChanged):
            if not self._ready:
                self._ready = True
                self._patience.cancel()
            self._reactor.soon(lambda: self._changed(self))
            return
        stream = self._streams.get(getattr(event, "stream_id", None) or 0)
        if stream is None:
            return
        if isinstance(event, DataReceived):
            stream.data(event.data, event.flow_controlled_length)
        elif isinstance(event, ResponseReceived | InformationalResponseReceived):
            stream.head(event.headers)
        elif isinstance(event, TrailersReceived):
            stream.end_of_answer(event.headers)
        elif isinstance(event, StreamEnded):
            stream.end_of_answer()
        elif isinstance(event, StreamReset):
            again = event.error_code == ErrorCodes.REFUSED_STREAM
            name = getattr(event.error_code, "name", event.error_code)
            stream.used = False  # an answer of the upstream, if a rude one: only what it refuses unseen is repeated
            stream.fail(ConnectionResetError(f"HTTP/2 stream reset: {name}"), again=again)
        else:
            return
        self._touched[stream] = None

    def _said_goodbye(self, last: int) -> None:
        """GOAWAY: what is beyond `last` was not looked at; the rest goes on."""
        self.leaving = True
        self._reactor.soon(lambda: self._changed(self))
        for stream in list(self._streams.values()):
            if stream.number > last:
                stream.fail(ConnectionResetError("HTTP/2: the upstream goes away"), again=True)
                self._touched[stream] = None

    def ended(self) -> None:
        """The upstream sends no more."""
        self._lose(None)

    def drained(self) -> None:
        """The wire takes bytes again."""
        self._pump()

    def lost(self, error: OSError | None) -> None:
        """The connection is gone."""
        self._lose(error)

    def _silent(self) -> None:
        if not self._ready:
            self._lose(ConnectionAbortedError("HTTP/2: no SETTINGS came"))

    def close(self) -> None:
        """End it: nothing runs on it."""
        self._lose(None)

    def _lose(self, error: OSError | None) -> None:
        if self._dead:
            return
        self._dead = self.leaving = True
        self._patience.cancel()
        self._wire.abort()
        self._pending.clear()
        for stream in [*self._streams.values(), *self._promised]:
            stream.fail(ConnectionResetError(str(error or "the upstream closed the connection")))
            stream.deliver()
        self._streams.clear()
        self._promised.clear()
        self._changed(self)
