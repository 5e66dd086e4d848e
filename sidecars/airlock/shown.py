"""What the first bytes of a connection show, and whether it may have the name that they ask for. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..kit.refusal import Refused
from ..kit.tls import hello
from .heads import Requests
from .policy import Proof, Route, covers

if TYPE_CHECKING:
    from typing import Protocol

    from .policy import Policy

    class Service(Protocol):
        """The relay, as far as it is asked about names."""

        @property
        def policy(self) -> Policy: ...
        def clock(self) -> float: ...


_METHODS = (b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"OPTI", b"PATC", b"CONN", b"TRAC", b"PRI ")


class Shown:
    """The name of one connection.

    Args:
        service: knows the policy.
        route: where the connection's address leads.

    Attributes:
        name: what the connection leads to; "" until it has shown that, and for an address.
        requests: watches an HTTP connection.
    """

    __slots__ = ("_service", "_route", "name", "requests")

    def __init__(self, service: Service, route: Route) -> None:
        self._service, self._route = service, route
        self.name = route.name
        self.requests: Requests | None = None

    def __repr__(self) -> str:
        return f"<Shown {self.name or self._route.pattern}>"

    def judge(self, seen: bytes) -> bytes | None:
        """Look at everything that came so far; returns what may be sent on, None while more is needed.

        Raises:
            Refused, hello.Malformed: the connection may not go on.
            hello.Incomplete: more of a ClientHello is needed.
        """
        proof = self._route.proof
        if hello.looks_like_tls(seen) and proof is not Proof.HTTP:
            self.judge_hello(seen)
            return seen
        if proof is Proof.TLS:
            raise Refused(403, "no-tls", f"port {self._route.port} carries TLS only")
        if proof is Proof.HTTP or seen.startswith(_METHODS):
            self.requests = Requests(self.accept, self._route.port)
            passed = self.requests.feed(seen)
            return passed if self.requests.started else None
        if len(seen) >= max(map(len, _METHODS)) or not any(method.startswith(seen) for method in _METHODS):
            what = self._route.pattern or "a name that is not allowed"
            why = f"only TLS and HTTP show which name of {what} is meant"
            raise Refused(403, "no-proof", why, "allow the exact name with its port")
        return None

    def judge_hello(self, seen: bytes) -> None:
        """Take the name in a ClientHello; raises what `hello.server_name` raises, and Refused."""
        name = hello.server_name(seen)
        policy, port = self._service.policy, self._route.port
        if name is not None:
            self.accept(name)
        elif not self.name or not policy.allows_without_name(self.name, port, self._service.clock()):
            allow = policy.hint_exactly(self.name, port) if self.name else ""
            raise Refused(403, "no-name", "The TLS client sends no server name.", allow)
        else:
            self.accept(self.name)

    def accept(self, name: str) -> None:
        """Take the name that the connection shows; raises Refused when it may not have it."""
        policy, port = self._service.policy, self._route.port
        verdict = policy.judge_name(name, port, self._service.clock())
        if self.name and name != self.name:
            why = f"The connection leads to {self.name}, and asks for {name[:100]}."
            raise Refused(403, "other-name", why, verdict.allow)
        if not covers(self._route.pattern, name) or not _is_name(name):
            why = f"The connection leads to {self._route.pattern or 'a name'}, and asks for {name[:100]}."
            raise Refused(403, "other-name", why, verdict.allow)
        if not (verdict.allowed or verdict.ask):
            raise Refused(403, "not-allowed", f"{name} is {verdict.why}.", verdict.allow)
        self.name = name


def _is_name(name: str) -> bool:
    """Whether the text is a host name and no address: those are judged as addresses, elsewhere."""
    return not name.replace(".", "").isdigit() and ":" not in name and not name.startswith("[") and "." in name
