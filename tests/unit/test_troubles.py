"""Conditions that are held and tried again, and what the clients of a failed service read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

from terok_host.supervisor import apology
from terok_host.supervisor.ground import log
from terok_host.supervisor.ground.errors import TerokError
from terok_host.supervisor.troubles import FIRST, LONGEST, Attempt, Troubles


class Clock:
    """Takes what is to be done later; `tick` does it."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.pending: list[Callable[[], None]] = []

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        self.waits.append(seconds)
        self.pending.append(action)

    def tick(self) -> None:
        pending, self.pending = self.pending, []
        for action in pending:
            action()


def test_what_fails_is_held_and_tried_ever_less_often_until_it_works() -> None:
    clock, changes, errors = Clock(), [], [OSError(28, "No space left on device")] * 12
    troubles = Troubles(lambda: changes.append(troubles.lines))

    def action() -> None:
        if errors:
            raise errors.pop()

    attempt = Attempt("record", action, troubles, clock.later)
    attempt.now()
    attempt.now()  # asked again meanwhile: no second clock runs
    assert len(clock.pending) == 1
    while clock.pending:
        clock.tick()
    assert clock.waits == sorted(clock.waits) and FIRST <= clock.waits[0] < 1 and clock.waits[-1] == LONGEST
    assert changes == [("record: No space left on device",), ()]


def test_an_error_of_ours_is_held_without_its_full_stop() -> None:
    troubles, clock = Troubles(), Clock()

    def action() -> None:
        raise TerokError("Could not start a helper: Resource temporarily unavailable.")

    Attempt("standby", action, troubles, clock.later).now()
    assert troubles.lines == ("standby: Could not start a helper: Resource temporarily unavailable",)


def test_what_nothing_was_prepared_for_is_not_held() -> None:
    def action() -> None:
        raise KeyError("a defect")

    with pytest.raises(KeyError):
        Attempt("standby", action, Troubles(), Clock().later).now()


def test_a_log_that_cannot_be_written_loses_the_line_and_nothing_else() -> None:
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
        log.say("this is lost")
        log.trim()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("service", ["vault", "gate"])
def test_an_http_client_reads_why(service: str) -> None:
    answer = apology.answer(service, "box", "exit code 1")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ") and f"Content-Length: {len(body)}".encode() in head
    text = json.loads(body)["error"]["message"] if service == "vault" else body.decode()
    assert text.startswith(f"terok: The {service} of this container cannot start (exit code 1)")
    assert "terok status box" in text


def test_an_ssh_client_gets_a_failure_and_one_of_the_relay_the_end() -> None:
    assert apology.answer("ssh", "box", "exit code 1") == b"\0\0\0\1\5"
    assert apology.answer("airlock", "box", "exit code 1") == b""
