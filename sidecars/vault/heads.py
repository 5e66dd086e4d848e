"""Heads seen before: clients that keep their connection send most of their heads again, byte for byte.

Rules of this file:
- a plan depends on nothing but the head's bytes and one generation of the keeper: `forget` ends a generation;
- nothing refused is kept: a refusal is decided anew every time;
- limits, rates, the login's age and the books are asked for every request, seen before or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..kit import limits

if TYPE_CHECKING:
    from .decide import Plan


class Heads:
    """The plans of the heads seen last. One container's: another container has another process."""

    def __init__(self) -> None:
        self._plans: dict[bytes, Plan] = {}

    def find(self, head: bytes) -> Plan | None:
        """The plan for a head, its empty line included; None when it must be decided."""
        return self._plans.get(head)

    def keep(self, head: bytes, plan: Plan) -> None:
        """Remember a plan, when the head is short enough; the ones before go when there are too many."""
        if len(head) <= limits.HEAD_KEPT_MAX:
            if len(self._plans) >= limits.HEADS_KEPT:
                self._plans.clear()
            self._plans[head] = plan

    def forget(self) -> None:
        """Keep nothing: tokens, routes or credentials have changed."""
        self._plans.clear()
