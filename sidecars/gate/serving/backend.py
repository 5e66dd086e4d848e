"""git-http-backend: how it is run, and its output as an answer."""

from __future__ import annotations

import os

from ....supervisor.ground import process
from ...kit.refusal import Refused
from .. import git
from .connection import Body, ChunkedAnswer, Connection, Gone
from .pipes import Pipes, Pump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Relay:
    """Turns a CGI program's output into an answer."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._head = b""
        self._answer: ChunkedAnswer | None = None

    def feed(self, data: bytes) -> None:
        """Take output; sends the head as soon as it is whole."""
        if self._answer is not None:
            self._answer.write(data)
            return
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if end:
            try:
                status, fields = parse_cgi(head)
            except ValueError:
                raise Refused(500, "git", "git's answer is malformed.") from None
            self._answer = ChunkedAnswer(self._connection, status, fields)
            self._answer.write(rest)

    def finish(self, code: int, errors: bytes) -> None:
        """End the answer; one that is not whole ends the connection, so that the client does not take it for whole.

        Raises:
            Refused: there was no answer at all.
            Gone: git failed in the middle of it.
        """
        if self._answer is None:
            raise Refused(500, "git", "git gave no answer.")
        if code:
            raise Gone(errors.decode(errors="replace"))
        self._answer.finish()


def parse_cgi(data: bytes) -> tuple[int, dict[str, str]]:
    """The head that a CGI program printed (RFC 3875): status and fields, without those of the framing.

    Raises:
        ValueError: it is not one.
    """
    status, fields = 200, {}
    for line in data.decode("latin-1").split("\r\n"):
        name, colon, value = line.partition(":")
        if not colon or not name.replace("-", "").isalpha() or not name.isascii():
            raise ValueError("a CGI header is malformed")
        if name.lower() == "status":
            status = int(value.split()[0])
        elif name.lower() not in ("connection", "transfer-encoding", "content-length"):
            fields[name] = value.strip()
    return status, fields


def run(
    connection: Connection,
    variables: Mapping[str, str],
    pairs: list[tuple[str, str]],
    body: Body | None,
    first: bytes,
    sink: Callable[[bytes], None],
    *,
    seconds: float,
    idle: float,
) -> tuple[bytes, int]:
    """Run git-http-backend with a request's body; returns the beginning of its stderr and its exit code."""
    pipes = Pipes()
    pid = 0
    try:
        program = os.path.join(git.exec_path(), "git-http-backend")
        pid = process.spawn(
            [program], env=git.environment(pairs, **variables), fds=pipes.child, die_with_parent=True, new_session=True
        )
        pipes.started()
        pump = Pump(connection, pipes, body, first, sink, idle=idle)
        pump.run(seconds)
        pipes.close()
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        pid = 0
        return pump.errors, code
    finally:
        pipes.close()
        if pid:
            os.killpg(pid, 9)
            os.waitpid(pid, 0)
