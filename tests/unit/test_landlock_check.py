"""What setup, doctor and status say about a kernel without Landlock."""

from __future__ import annotations

import pytest

from terok_host.runtime.care import landlock
from terok_host.runtime.kit.check import OK, WARN


@pytest.mark.parametrize(("abi", "state", "said"), [
    (0, WARN, "can read every file that you can"),
    (1, WARN, "can connect to any TCP port"),
    (3, WARN, "can connect to any TCP port"),
    (4, OK, "ABI 4"),
    (7, OK, "ABI 7"),
])  # fmt: skip
def test_what_is_missing_is_said_with_what_helps(abi: int, state: str, said: str) -> None:
    check = landlock.check(abi)
    assert (check.what, check.state) == ("Landlock", state)
    assert said in check.detail
    assert bool(check.fix) == (state != OK)
