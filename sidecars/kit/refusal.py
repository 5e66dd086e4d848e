"""Why a request is not served: one value, and the exception that carries it up to where it is answered."""

from __future__ import annotations

from typing import NamedTuple


class Refusal(NamedTuple):
    """Why a request is not served.

    Attributes:
        status: the HTTP status for the client.
        rule: short name of the rule, for the audit.
        why: one sentence.
        allow: what would allow it; empty: nothing would.
        provider, scope: of the token; empty when unknown.
        retry_after: seconds until a repetition may succeed; 0: not said.
    """

    status: int
    rule: str
    why: str
    allow: str = ""
    provider: str = ""
    scope: str = ""
    retry_after: int = 0


class Refused(Exception):
    """A message or an answer that is not passed on.

    Args:
        status, rule, why, allow: as in `Refusal`.

    Attributes:
        refusal: why.
    """

    def __init__(self, status: int, rule: str, why: str, allow: str = "") -> None:
        super().__init__(why)
        self.refusal = Refusal(status, rule, why, allow)
