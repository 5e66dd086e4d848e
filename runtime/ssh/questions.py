"""Signatures that wait for the operator: finds them in the state bundles and brings the answer back."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from ...sidecars.ssh.confirm import ANSWER, NO, QUESTION, YES
from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import Bundle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...supervisor.ground.layout import Layout

SIZE_MAX = 16 << 10
TEXT_MAX = 512
TIME_MAX = 1e11
"""Seconds since the epoch; an infinite number, or none, is no time."""


class Waiting(NamedTuple):
    """One signature that waits; `shown` is what is known about it."""

    id: str
    answer: str
    shown: dict[str, Any]

    def text(self, now: float) -> str:
        """A line for people."""
        shown = self.shown
        left = max(0, round(shown["expires"] - now))
        return f"{self.id}  {shown['container']} wants to {self.purpose} with {shown['key']} ({left} s left)"

    @property
    def purpose(self) -> str:
        """What the signature is for."""
        if self.shown["user"]:
            return f"log in to {self.shown['host'] or 'an unknown host'} as {self.shown['user']}"
        return f"sign in the namespace {self.shown['namespace']}"


def waiting(layout: Layout) -> list[Waiting]:
    """Every signature that waits in any container, and in the agents of the operator's own shells."""
    pending = [question for bundle in _bundles(layout) for question in _of(bundle)]
    return sorted(pending, key=lambda question: float(question.shown["asked"]))


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
                shown = _checked(json.loads(file.read(SIZE_MAX)))
        except (OSError, ValueError):
            continue  # answered in this moment, or not written by an honest signer
        yield Waiting(os.path.basename(path), path + ANSWER, {**shown, "container": bundle.name})


def _checked(document: object) -> dict[str, object]:
    """A question with just the fields that are shown; ValueError when one is missing or could confuse a terminal."""
    if not isinstance(document, dict):
        raise ValueError("not an object")
    shown: dict[str, object] = {}
    for field in ("id", "key", "fingerprint", "host", "user", "namespace"):
        value = document.get(field)
        if value is not None and not (isinstance(value, str) and value.isprintable() and len(value) <= TEXT_MAX):
            raise ValueError(field)
        shown[field] = value
    for field in ("asked", "expires"):
        if not (isinstance(document.get(field), int | float) and 0 <= document[field] < TIME_MAX):
            raise ValueError(field)
        shown[field] = float(document[field])
    return shown


def answer(question: Waiting, *, yes: bool) -> None:
    """Tell the signer.

    Raises:
        TerokError: it is no longer waiting.
    """
    try:
        fd = os.open(question.answer, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # the FIFO is gone, or no process has it open for reading
        raise TerokError(f"The signature {question.id} is no longer waiting.", code=Exit.NOT_FOUND) from None
    with open(fd, "wb", buffering=0) as file:
        file.write(YES if yes else NO)
