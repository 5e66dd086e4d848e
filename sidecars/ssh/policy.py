"""What a key may sign, as pure decisions: no keys are touched, nothing is read, no clock is asked.

A policy is plain JSON in the key's meta, per scope (`docs/ssh.md` explains every field). Where it says nothing, the
strict default holds: no host is pinned, so no login is signed; git's SSHSIG namespace is. Each refusal is a sentence
for the audit and says what would allow it.
"""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64
from typing import Any, NamedTuple

from ...supervisor.ground import paste
from . import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

USERS = ("git",)
NAMESPACES = ("git",)
RATE = 120
"""Signatures a minute: a rebase that signs a hundred commits passes, a loop does not run for long."""

BINDS_MAX = 16
"""Sessions that one connection may be bound to, one a hop; OpenSSH's agent has the same limit."""


def known_hosts(documents: Iterable[Mapping[str, Any]]) -> list[str]:
    """The hosts that policy documents pin, as lines of a known_hosts file (sshd(8))."""
    pins = (pin for document in documents for pin in document.get("hosts", {}).items())
    return list(dict.fromkeys(f"{host} {line}" for host, entry in pins for line in entry["keys"]))


FIELDS = frozenset({"hosts", "users", "namespaces", "rate", "require_bind", "forwarding", "confirm"})


class PolicyError(ValueError):
    """A policy is not understood; its key signs nothing until it is corrected."""


class Pin(NamedTuple):
    """A host that a key may log in to: its name is a label, the host key is what counts."""

    host: str
    users: tuple[str, ...]


class Policy(NamedTuple):
    """What one key may sign for one scope.

    pins: by the host key's public blob.
    users: remote user names of hosts that name none of their own.
    rate: signatures a minute; 0: any number.
    require_bind: whether a login needs a connection that is bound to its session.
    forwarding: whether requests that come over a forwarded agent are served.
    confirm: whether the operator says yes to each signature.
    """

    pins: Mapping[bytes, tuple[Pin, ...]] = {}
    users: tuple[str, ...] = USERS
    namespaces: tuple[str, ...] = NAMESPACES
    rate: int = RATE
    require_bind: bool = True
    forwarding: bool = False
    confirm: bool = False


STRICT = Policy()


def parse(document: object) -> Policy:
    """The policy that a JSON document describes.

    Raises:
        PolicyError: an unknown field or a wrong type: a policy that is half understood is not strict.
    """
    if document is None:
        return STRICT
    if not isinstance(document, dict):
        raise PolicyError("a policy is not an object")
    if unknown := sorted(document.keys() - FIELDS):
        raise PolicyError(f"a policy has the unknown field {unknown[0]!r}")
    users = _words(document, "users", USERS)
    return Policy(
        pins=_pins(document.get("hosts", {}), users),
        users=users,
        namespaces=_words(document, "namespaces", NAMESPACES),
        rate=_count(document, "rate", RATE),
        require_bind=_flag(document, "require_bind", default=True),
        forwarding=_flag(document, "forwarding", default=False),
        confirm=_flag(document, "confirm", default=False),
    )


def _words(document: Mapping[str, object], field: str, default: tuple[str, ...]) -> tuple[str, ...]:
    value = document.get(field, default)
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item for item in value):
        raise PolicyError(f"{field} is not a list of words")
    return tuple(value)


def _count(document: Mapping[str, object], field: str, default: int) -> int:
    value = document.get(field, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise PolicyError(f"{field} is not a non-negative number")
    return value


def _flag(document: Mapping[str, object], field: str, *, default: bool) -> bool:
    value = document.get(field, default)
    if not isinstance(value, bool):
        raise PolicyError(f"{field} is neither true nor false")
    return value


def _pins(hosts: object, users: tuple[str, ...]) -> dict[bytes, tuple[Pin, ...]]:
    if not isinstance(hosts, dict):
        raise PolicyError("hosts is not an object")
    pins: dict[bytes, tuple[Pin, ...]] = {}
    for host, entry in hosts.items():
        if not isinstance(entry, dict) or entry.keys() - {"keys", "users"} or not isinstance(entry.get("keys"), list):
            raise PolicyError(f"the host {host!r} does not have just keys and users")
        pin = Pin(host, _words(entry, "users", users))
        for line in entry["keys"]:
            blob = host_key(line)
            pins[blob] = (*pins.get(blob, ()), pin)
    return pins


def host_key(line: object) -> bytes:
    """The public blob of a pinned host key, `TYPE BASE64`.

    Raises:
        PolicyError: it is something else.
    """
    words = line.split() if isinstance(line, str) else []
    try:
        blob = a2b_base64(words[1], strict_mode=True) if len(words) == 2 else b""
        if blob and wire.Reader(blob).text() == words[0]:
            return blob
    except (Base64Error, ValueError):
        pass
    raise PolicyError(f"{str(line)[:60]!r} is not a host key")


class Bindings:
    """The sessions that one connection was bound to, in their order, and why a bind was refused, if one was.

    A connection with a refused bind is never treated as unbound again: its peer has shown where it belongs.
    """

    __slots__ = ("binds", "refused")

    def __init__(self) -> None:
        self.binds: list[wire.Bind] = []
        self.refused = ""

    def __repr__(self) -> str:
        hops = ["forwarded" if bind.forwarded else "login" for bind in self.binds]
        return f"Bindings({' → '.join(hops) or 'none'}{', refused' if self.refused else ''})"


class Verdict(NamedTuple):
    """A decision about one request, and what the audit says about it.

    reason, allow: why it was refused, and what would allow it; both empty when it is allowed.
    """

    allowed: bool
    reason: str = ""
    allow: str = ""
    host: str | None = None
    user: str | None = None
    namespace: str | None = None


def decide_bind(bindings: Bindings, bind: wire.Bind, policies: Iterable[Policy], *, elsewhere: bool) -> Verdict:
    """Whether a connection may be bound to a session; the signature in `bind` is the caller's to verify.

    Args:
        bindings: what the connection was bound to before.
        bind: the request.
        policies: of every key that the connection could use.
        elsewhere: whether another connection was bound to this session for its login before.
    """
    policies = list(policies)
    names = [pin.host for policy in policies for pin in policy.pins.get(bind.host_key, ())]
    host = names[0] if names else None
    # One connection to the agent serves one login (PROTOCOL.agent, 1): after a bind that is no forwarding nothing may
    # follow but the same bind again. Several forwarding binds are the hops of `ssh -A`, nearest host first.
    for before in bindings.binds:
        if not before.forwarded:
            fix = "open a connection for each login"
            return Verdict(False, "the connection is bound to a login already", fix, host)
        if before.session_id == bind.session_id:
            if before.host_key == bind.host_key and before.forwarded == bind.forwarded:
                return Verdict(True, host=host)
            return Verdict(False, "the session is bound to this connection in another way", "", host)
    if len(bindings.binds) >= BINDS_MAX:
        return Verdict(False, f"the connection is bound to {BINDS_MAX} sessions already", "", host)
    if host is None:
        return Verdict(False, "the host key is not pinned", "terok ssh trust HOST")
    if bind.forwarded and not any(policy.forwarding for policy in policies):
        return Verdict(False, "the agent is being forwarded to another host", FORWARDING, host)
    if elsewhere and not bind.forwarded:
        return Verdict(False, "the session was bound by another connection before", "log in anew", host)
    return Verdict(True, host=host)


FORWARDING = "terok ssh policy KEY --scope SCOPE --forwarding yes"
REQUIRE_BIND = "OpenSSH 8.9 or newer in the container, or terok ssh policy KEY --scope SCOPE --require-bind no"


def decide_login(policy: Policy, request: wire.UserAuth, bindings: Bindings) -> Verdict:
    """Whether a key may sign a login, given what its connection is bound to.

    Args:
        policy: the key's.
        request: what is to be signed; that key and algorithm are the requested ones is the caller's to check.
        bindings: of the connection.
    """
    user = request.user
    if bindings.refused:
        return Verdict(False, f"the connection's session bind was refused: {bindings.refused}", "", user=user)
    if not bindings.binds:
        return _decide_unbound(policy, request)
    # The last bind is the session that asks. Every hop before it has seen the request and could have changed it, so
    # each one's host key must be pinned for this key too.
    last = bindings.binds[-1]
    pins = policy.pins.get(last.host_key, ())
    host = pins[0].host if pins else None
    if last.session_id != request.session_id:
        return Verdict(False, "the session is not the one that the connection is bound to", "", host, user)
    if last.forwarded:
        return Verdict(False, "the session forwards the agent and is not a login", "", host, user)
    if len(bindings.binds) > 1 and not policy.forwarding:
        return Verdict(False, "the request comes over a forwarded agent", FORWARDING, host, user)
    if not all(bind.host_key in policy.pins for bind in bindings.binds):
        return Verdict(False, "the host key is not pinned for this key", "terok ssh trust HOST", host, user)
    if request.host_key is not None and request.host_key != last.host_key:
        return Verdict(False, "the login names another host key than the session's", "", host, user)
    return _decide_user(pins, user)


def _decide_user(pins: tuple[Pin, ...], user: str) -> Verdict:
    for pin in pins:
        if user in pin.users:
            return Verdict(True, host=pin.host, user=user)
    host = pins[0].host
    return Verdict(
        False, "the user name is not allowed", paste.command("terok", "ssh", "trust", host, user=user), host, user
    )


def _decide_unbound(policy: Policy, request: wire.UserAuth) -> Verdict:
    user = request.user
    if policy.require_bind:
        return Verdict(False, "the client did not bind the connection to its session", REQUIRE_BIND, user=user)
    if request.host_key is not None:
        # the method that names the host key in what is signed: only that server accepts the signature
        pins = policy.pins.get(request.host_key, ())
        if not pins:
            return Verdict(False, "the host key is not pinned for this key", "terok ssh trust HOST", user=user)
        return _decide_user(pins, user)
    users = {*policy.users, *(name for pins in policy.pins.values() for pin in pins for name in pin.users)}
    if user not in users:
        fix = paste.command("terok", "ssh", "policy", "KEY", "--scope", "SCOPE", user=user)
        return Verdict(False, "the user name is not allowed", fix, user=user)
    return Verdict(True, user=user)


def decide_sshsig(policy: Policy, request: wire.SshSig, bindings: Bindings) -> Verdict:
    """Whether a key may sign in an SSHSIG namespace, given what its connection is bound to."""
    namespace = request.namespace
    host: str | None = None
    if bindings.refused:
        reason = f"the connection's session bind was refused: {bindings.refused}"
        return Verdict(False, reason, "", namespace=namespace)
    if bindings.binds:
        pins = [policy.pins.get(bind.host_key) for bind in bindings.binds]
        host = pins[-1][0].host if pins[-1] else None
        if not bindings.binds[-1].forwarded:
            return Verdict(False, "the connection is bound to a login", "", host, namespace=namespace)
        if not policy.forwarding:
            return Verdict(False, "the request comes over a forwarded agent", FORWARDING, host, namespace=namespace)
        if not all(pins):
            fix = "terok ssh trust HOST"
            return Verdict(False, "the host key is not pinned for this key", fix, host, namespace=namespace)
    if namespace not in policy.namespaces:
        fix = paste.command("terok", "ssh", "policy", "KEY", "--scope", "SCOPE", namespace=namespace)
        return Verdict(False, "the namespace is not allowed", fix, host, namespace=namespace)
    return Verdict(True, host=host, namespace=namespace)


class Rate:
    """How many signatures a minute one key may make: a bucket that holds a minute's worth.

    Args:
        now: seconds, from any clock that does not go back.
    """

    __slots__ = ("_left", "_limit", "_since")

    def __init__(self, limit: int, now: float) -> None:
        self._limit, self._left, self._since = limit, float(limit), now

    def take(self, limit: int, now: float) -> bool:
        """Take one signature; False when none is left. `limit` is the policy's current one, 0 for any number."""
        if limit != self._limit:
            self._limit, self._left = limit, min(self._left, float(limit)) if self._limit else float(limit)
        if not limit:
            return True
        self._left = min(float(limit), self._left + (now - self._since) * limit / 60)
        self._since = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
