"""How often and how many at once: a route's `rate`, for one container."""

from __future__ import annotations

from ...kit.refusal import Refusal
from ..decide import Plan

WINDOW = 60.0


class Rates:
    """Counts requests by route. A minute's allowance is counted from its first request."""

    def __init__(self) -> None:
        self._minutes: dict[tuple[str, str], tuple[float, int]] = {}
        self._running: dict[tuple[str, str], int] = {}

    def take(self, plan: Plan, now: float) -> Refusal | None:
        """Count a request in, or say why it must wait. `now` is monotonic. What was counted in ends with `leave`."""
        route = plan.route
        key = (plan.grant.scope, route.name)
        if route.concurrent is not None and self._running.get(key, 0) >= route.concurrent:
            why = f"{route.concurrent} requests to {route.name} are running already."
            return Refusal(429, "concurrent", why, "wait for one to end", route.name, plan.grant.scope, 1)
        if route.per_minute is not None:
            start, count = self._minutes.get(key, (now, 0))
            if now - start >= WINDOW:
                start, count = now, 0
            if count >= route.per_minute:
                left = max(1, int(start + WINDOW - now + 0.999))
                why = f"{route.name} allows {route.per_minute} requests a minute."
                return Refusal(429, "per-minute", why, f"wait {left} s", route.name, plan.grant.scope, left)
            self._minutes[key] = (start, count + 1)
        if route.concurrent is not None:
            self._running[key] = self._running.get(key, 0) + 1
        return None

    def leave(self, plan: Plan) -> None:
        """A request that was counted in has ended."""
        if plan.route.concurrent is not None:
            key = (plan.grant.scope, plan.route.name)
            self._running[key] = max(0, self._running.get(key, 0) - 1)
