"""git-http-backend: how it is run, and its output as an answer."""

from __future__ import annotations

import os

from ....supervisor.ground import process
from .. import git
from . import http
from .wire import Body, ChunkedAnswer, Connection, Gone, Pipes, pump

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
                status, fields = http.parse_cgi(head)
            except ValueError:
                raise http.HttpError(500, "git's answer is malformed.") from None
            self._answer = ChunkedAnswer(self._connection, status, fields)
            self._answer.write(rest)

    def finish(self, code: int, errors: bytes) -> None:
        """End the answer; one that is not whole ends the connection, so that the client does not take it for whole.

        Raises:
            http.HttpError: there was no answer at all.
            Gone: git failed in the middle of it.
        """
        if self._answer is None:
            raise http.HttpError(500, "git gave no answer.")
        if code:
            raise Gone(errors.decode(errors="replace"))
        self._answer.finish()


def run(
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
        errors = pump(pipes, body, first, sink, seconds=seconds, idle=idle)
        pipes.close()
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        pid = 0
        return errors, code
    finally:
        pipes.close()
        if pid:
            os.killpg(pid, 9)
            os.waitpid(pid, 0)
