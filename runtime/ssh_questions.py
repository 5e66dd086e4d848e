"""Signatures that wait for the operator: finds them in the state bundles and brings the answer back."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from ..sidecars.ssh.confirm import ANSWER, NO, QUESTION, YES
from ..supervisor.errors import Exit, TerokError
from ..supervisor.layout import Bundle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..supervisor.layout import Layout


class Waiting(NamedTuple):
    """One signature that waits; `shown` is what is known about it."""

    id: str
    answer: str
    shown: dict[str, Any]

    def text(self, now: float) -> str:
        """A line for people."""
        shown = self.shown
        what = (
            f"log in to {shown['host'] or 'an unknown host'} as {shown['user']}"
            if shown["user"]
            else (f"sign in the namespace {shown['namespace']}")
        )
        left = max(0, round(shown["expires"] - now))
        return f"{self.id}  {shown['container']} wants to {what} with {shown['key']} ({left} s left)"


def waiting(layout: Layout) -> list[Waiting]:
    """Every signature that waits in any container, and in the agents of the operator's own shells."""
    found = [each for bundle in _bundles(layout) for each in _of(bundle)]
    return sorted(found, key=lambda each: float(each.shown["asked"]))


def _bundles(layout: Layout) -> Iterator[Bundle]:
    for parent in (layout.containers, layout.agents):
        try:
            names = os.listdir(parent)
        except FileNotFoundError:
            continue
        for name in sorted(names):
            yield Bundle(os.path.join(parent, name))


def _of(bundle: Bundle) -> Iterator[Waiting]:
    try:
        names = os.listdir(bundle.confirm)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        if not name.endswith(QUESTION):
            continue
        path = os.path.join(bundle.confirm, name.removesuffix(QUESTION))
        try:
            with open(path + QUESTION, encoding="utf-8") as file:
                shown = json.load(file)
        except (OSError, ValueError):
            continue  # answered in this moment
        yield Waiting(shown["id"], path + ANSWER, {**shown, "container": bundle.name})


def answer(question: Waiting, *, yes: bool) -> None:
    """Tell the signer.

    Raises:
        TerokError: it does not wait any more.
    """
    try:
        fd = os.open(question.answer, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # the FIFO is gone, or nobody has it open for reading
        raise TerokError(f"The signature {question.id} does not wait any more.", code=Exit.NOT_FOUND) from None
    with open(fd, "wb", buffering=0) as file:
        file.write(YES if yes else NO)
