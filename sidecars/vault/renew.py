"""When a login must be refreshed before a request goes on, and what waits for it.

The refresh itself is the helper's (`sidecars/login/helper.py`): this process only asks, waits,
and reads the store again.
"""

from __future__ import annotations

from collections.abc import Callable
from time import time
from typing import TYPE_CHECKING

from ..kit.reactor import READ, Reactor
from ..kit.refusal import Refusal
from . import limits
from .tokens import Grant

if TYPE_CHECKING:
    from ..login.helper import Helper
    from .inject import Loaded
    from .keeper import Keeper
    from .routes import Route

Renewed = Callable[["Loaded | Refusal"], None]


class Renewer:
    """Asks the helper for one login at a time, however many requests wait for it.

    Args:
        reactor: the loop.
        keeper: where the credential is read again.
        helper: None when no credential was a login as the process started.
    """

    def __init__(self, reactor: Reactor, keeper: Keeper, helper: Helper | None) -> None:
        self._reactor, self._keeper, self._helper = reactor, keeper, helper
        self._waiting: dict[Grant, list[Renewed]] = {}
        self._refused: dict[Grant, tuple[float, Refusal]] = {}
        """Until when a refusal stands, and which."""
        if helper is not None:
            reactor.watch(helper.fileno(), READ, self._answered)

    def can(self, route: Route, loaded: Loaded) -> bool:
        """Whether this credential is a login that can be refreshed."""
        return route.refresh is not None and loaded.credential.auth == "oauth" and bool(loaded.credential.refresh_token)

    @property
    def missing(self) -> bool:
        """Whether there is no helper: the process must start again to refresh anything."""
        return self._helper is None

    def must_wait(self, grant: Grant, route: Route, loaded: Loaded) -> bool:
        """Ask for a refresh when one is due; True when the access token has ended, so that a request must wait."""
        expires = loaded.credential.expires_at
        if expires is None or route.refresh is None or not self.can(route, loaded):
            return False
        left = expires - time()
        if left > route.refresh.margin:
            return False
        if left <= limits.EXPIRY_SECONDS:
            return True
        if grant not in self._waiting and self._standing(grant) is None:
            self.ask(grant, None, lambda _found: None)
        return False

    def ask(self, grant: Grant, version: int | None, done: Renewed) -> None:
        """Call `done` with the refreshed credential, or with why there is none; never before this returns.

        Args:
            version: the credential that the upstream answered with 401; None: refresh when due.
        """
        waiting = self._waiting.get(grant)
        if waiting is not None:
            waiting.append(done)
            return
        refusal = self._standing(grant)
        if version is not None and refusal is not None:
            # a path may answer 401 whatever the token is: the helper forks for each question
            self._reactor.soon(lambda: done(refusal))
            return
        self._waiting[grant] = waiting = [done]
        self._reactor.later(limits.RENEW_SECONDS, lambda: self._late(grant, waiting))
        if self._helper is None or not self._helper.ask(grant.scope, grant.provider, version=version):
            self._reactor.soon(lambda: self._finish(grant, "The process that refreshes logins is gone.", ""))

    def _standing(self, grant: Grant) -> Refusal | None:
        until, refusal = self._refused.get(grant, (0.0, None))
        return refusal if self._reactor.now < until else None

    def _late(self, grant: Grant, waiting: list[Renewed]) -> None:
        if self._waiting.get(grant) is waiting:
            self._finish(grant, "It took too long.", "")

    def _answered(self, _events: int) -> None:
        helper = self._helper
        if helper is None:
            return
        answers = helper.receive()
        if answers is None:
            self._reactor.forget(helper.fileno())
            self._helper = None
            for grant in list(self._waiting):
                self._finish(grant, "The process that refreshes logins is gone.", "")
            return
        for answer in answers:
            self._finish(Grant(answer.scope, answer.name), answer.error, answer.fix)

    def _finish(self, grant: Grant, error: str, fix: str) -> None:
        self._keeper.look()
        outcome = self._keeper.credential(grant)
        if error and not isinstance(outcome, Refusal):
            why = f"The login for {grant.provider} could not be refreshed. {error}"
            outcome = Refusal(401 if fix else 503, "login", why, fix, grant.provider, grant.scope)
            self._refused[grant] = (self._reactor.now + limits.RENEW_AGAIN_SECONDS, outcome)
        for done in self._waiting.pop(grant, []):
            done(outcome)
