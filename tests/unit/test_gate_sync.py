"""Tests of how the mirror follows upstream: a table of every combination of view, upstream then, and upstream now."""

from __future__ import annotations

import pytest

from terok_host.sidecars.gate.forge.sync import Step, decide

NONE = "0" * 40
ONE, TWO, THREE, SIDE = (character * 40 for character in "1239")
ORDER = [ONE, TWO, THREE]
REF = "refs/heads/x"


def forward(old: str, new: str) -> bool:
    """1 -> 2 -> 3 is one line, 9 stands apart."""
    return old in ORDER and new in ORDER and ORDER.index(old) <= ORDER.index(new)


def step(view: str, before: str, after: str, ref: str = REF) -> tuple[str, bool] | None:
    """What happens to a ref: (kind, waits), or None."""
    ours, then, now = ({ref: value} if value else {} for value in (view, before, after))
    found = list(decide(ours, then, now, forward))
    assert len(found) <= 1
    return (found[0].kind, found[0].waits) if found else None


@pytest.mark.parametrize(
    ("view", "before", "after", "expected"),
    [
        ("", "", "", None),
        ("", "", ONE, ("create", False)),
        (ONE, ONE, ONE, None),
        (ONE, ONE, TWO, ("update", False)),
        (SIDE, SIDE, ONE, ("force", True)),
        (ONE, ONE, SIDE, ("force", True)),
        (ONE, ONE, "", ("delete", True)),
        # only a container moved it
        (TWO, ONE, ONE, None),
        (SIDE, ONE, ONE, None),
        ("", ONE, ONE, None),
        (ONE, "", "", None),
        # both moved
        (TWO, ONE, THREE, ("update", False)),
        (THREE, ONE, TWO, None),
        (SIDE, ONE, TWO, ("force", True)),
        (TWO, ONE, TWO, None),
        ("", ONE, TWO, ("create", False)),
        (TWO, ONE, "", ("delete", True)),
        (ONE, "", TWO, ("update", False)),
        (SIDE, "", ONE, ("force", True)),
    ],
)
def test_branches(view: str, before: str, after: str, expected: tuple[str, bool] | None) -> None:
    assert step(view, before, after) == expected


def test_a_rewind_of_upstream_waits() -> None:
    assert step(TWO, TWO, ONE) == ("force", True)


def test_a_tag_never_moves_by_itself() -> None:
    assert step(ONE, ONE, TWO, "refs/tags/v") == ("force", True)
    assert step("", "", TWO, "refs/tags/v") == ("create", False)


def test_a_step_says_from_where_to_where() -> None:
    assert list(decide({}, {}, {REF: ONE}, forward)) == [Step(REF, "create", NONE, ONE, waits=False)]
    assert list(decide({REF: ONE}, {REF: ONE}, {}, forward)) == [Step(REF, "delete", ONE, NONE, waits=True)]
