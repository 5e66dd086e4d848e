"""One answer for each message: joins the codec, the policy, the keys and the audit. No sockets here."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from . import keys, policy, wire
from .keyring import Identity, Keyring, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..kit.audit import Audit

SESSIONS_KEPT = 4096
"""Session ids that are remembered against a second bind; 64 bytes each at most."""

LINES_MAX = 1200
"""Lines a minute in the audit besides signatures, which have a limit of their own: a container that floods the agent
must not push older lines out of the log. What was left out is counted in the next line's `left_out`."""


class Question(NamedTuple):
    """A signature that the policy allows and the operator has to confirm; `finish` it with the answer."""

    identity: Identity
    request: wire.Sign
    algorithm: str
    verdict: policy.Verdict


class Connection:
    """What the agent knows about one client connection: the sessions that it is bound to."""

    __slots__ = ("bindings",)

    def __init__(self) -> None:
        self.bindings = policy.Bindings()

    def __repr__(self) -> str:
        return f"Connection({self.bindings!r})"


class Agent:
    """Serves one scope's keys.

    Args:
        keyring: the keys.
        audit: gets one line a request.
        clock: seconds that never go back.
    """

    def __init__(self, keyring: Keyring, audit: Audit, clock: Callable[[], float] = time.monotonic) -> None:
        self._keyring, self._audit, self._clock = keyring, audit, clock
        self._rates: dict[str, policy.Rate] = {}
        self._sessions: dict[bytes, None] = {}
        self._lines = policy.Rate(LINES_MAX, clock())
        self._left_out = 0

    def close(self) -> None:
        """Say in the audit what was left out of it."""
        if self._left_out:
            self._audit.write("end", verdict="none", left_out=self._left_out)

    def handle(self, connection: Connection, message: bytes) -> bytes | Question:
        """The framed answer to one message, or a question for the operator.

        Raises:
            OSError: the audit cannot be written; nothing may be served then.
        """
        try:
            request = wire.parse_request(message)
        except wire.WireError as error:
            return self._refuse("request", policy.Verdict(False, f"the message is malformed: {error}"))
        if type(request) is wire.Sign:
            return self._sign(connection, request)
        if type(request) is wire.ListKeys:
            return self._list()
        if type(request) is wire.Bind:
            return self._bind(connection, request)
        if type(request) is wire.Query:
            self._write("query", policy.Verdict(True))
            return wire.ANSWER_QUERY
        assert type(request) is wire.Other  # the last of the five
        reason = f"{request.name} is not served: keys are managed on the host"
        return self._refuse("request", policy.Verdict(False, reason, "terok ssh on the host"))

    def _list(self) -> bytes:
        try:
            identities = self._keyring.refresh()
        except Unavailable as error:
            self._refuse("list", policy.Verdict(False, str(error), error.allow))
            return wire.answer_identities([])
        self._write("list", policy.Verdict(True), keys=len(identities))
        return wire.answer_identities([(identity.blob, identity.comment) for identity in identities.values()])

    def _bind(self, connection: Connection, bind: wire.Bind) -> bytes:
        bindings = connection.bindings
        try:
            policies = [identity.policy for identity in self._keyring.refresh().values() if identity.policy is not None]
            elsewhere = bind.session_id in self._sessions
            verdict = policy.decide_bind(bindings, bind, policies, elsewhere=elsewhere)
            if verdict.allowed and bind not in bindings.binds:
                keys.verify(bind.host_key, bind.signature, bind.session_id)
        except Unavailable as error:
            verdict = policy.Verdict(False, str(error), error.allow)
        except keys.KeyFormatError as error:
            verdict = verdict._replace(allowed=False, reason=f"the host did not sign the session: {error}")
        extra: dict[str, Any] = {"host_key": keys.fingerprint(bind.host_key), "forwarded": bind.forwarded}
        if not verdict.allowed:
            bindings.refused = bindings.refused or verdict.reason
            return self._refuse("bind", verdict, **extra)
        self._write("bind", verdict, **extra)
        if bind not in bindings.binds:
            bindings.binds.append(bind)
            if not bind.forwarded:
                self._remember(bind.session_id)
        return wire.ANSWER_SUCCESS

    def _remember(self, session_id: bytes) -> None:
        self._sessions[session_id] = None
        if len(self._sessions) > SESSIONS_KEPT:
            del self._sessions[next(iter(self._sessions))]

    def _sign(self, connection: Connection, request: wire.Sign) -> bytes | Question:
        try:
            identity = self._keyring.refresh().get(request.key)
        except Unavailable as error:
            return self._refuse("sign", policy.Verdict(False, str(error), error.allow))
        if identity is None:
            reason = "the key is not one of this scope's"
            return self._refuse("sign", policy.Verdict(False, reason), fingerprint=keys.fingerprint(request.key))
        if identity.policy is None:
            return self._refuse("sign", policy.Verdict(False, identity.problem, "terok ssh policy"), identity.name)
        try:
            algorithm, verdict = _decide(identity, identity.policy, request, connection.bindings)
        except (wire.WireError, keys.KeyFormatError) as error:
            return self._refuse(
                "sign", policy.Verdict(False, f"this agent does not sign such data: {error}"), identity.name
            )
        if verdict.allowed:
            rate = self._rates.get(identity.name)
            now = self._clock()
            if rate is None:
                rate = self._rates[identity.name] = policy.Rate(identity.policy.rate, now)
            if not rate.take(identity.policy.rate, now):
                reason = f"more than {identity.policy.rate} signatures a minute"
                verdict = verdict._replace(allowed=False, reason=reason, allow="terok ssh policy KEY --rate NUMBER")
        if not verdict.allowed:
            return self._refuse("sign", verdict, identity.name)
        question = Question(identity, request, algorithm, verdict)
        return question if identity.policy.confirm else self.finish(question)

    def ask(self, question: Question) -> dict[str, object]:
        """What the operator is shown; puts the question into the audit.

        Raises:
            OSError: as `handle`.
        """
        identity, _, _, verdict = question
        shown = {"host": verdict.host, "user": verdict.user, "key": identity.name, "namespace": verdict.namespace}
        self._audit.write("confirm", verdict="asked", **shown, allow="terok ssh confirm")
        return {**shown, "fingerprint": keys.fingerprint(identity.blob)}

    def finish(self, question: Question, refusal: str = "") -> bytes:
        """The answer to a request after the operator's word; `refusal` says why not, empty is a yes.

        Raises:
            OSError: as `handle`.
        """
        identity, request, algorithm, verdict = question
        if refusal:
            return self._refuse("sign", verdict._replace(allowed=False, reason=refusal), identity.name)
        try:
            signature = self._keyring.signer(identity).sign(request.data, algorithm)
        except Unavailable as error:
            verdict = verdict._replace(allowed=False, reason=str(error), allow=error.allow)
            return self._refuse("sign", verdict, identity.name)
        self._audit.write("sign", **_fields(verdict, identity.name))
        return wire.answer_signature(signature)

    def note(self, reason: str) -> None:
        """Put the end of a misbehaving connection into the audit."""
        self._refuse("connection", policy.Verdict(False, reason))

    def _refuse(self, event: str, verdict: policy.Verdict, key: str | None = None, **more: object) -> bytes:
        self._write(event, verdict, key, **more)
        return wire.ANSWER_FAILURE

    def _write(self, event: str, verdict: policy.Verdict, key: str | None = None, **more: object) -> None:
        if not self._lines.take(LINES_MAX, self._clock()):
            self._left_out += 1
            return
        if self._left_out:
            more["left_out"], self._left_out = self._left_out, 0
        self._audit.write(event, **_fields(verdict, key), **more)


def _decide(
    identity: Identity, rules: policy.Policy, request: wire.Sign, bindings: policy.Bindings
) -> tuple[str, policy.Verdict]:
    """The algorithm and the verdict on one sign request; WireError or KeyFormatError when it is nothing to sign."""
    algorithm = keys.algorithm_for(identity.kind, request.flags)
    signable = wire.parse_signable(request.data)
    if type(signable) is wire.SshSig:
        return algorithm, policy.decide_sshsig(rules, signable, bindings)
    assert type(signable) is wire.UserAuth
    if signable.key != identity.blob:
        raise wire.WireError("a userauth request names another key")
    if signable.algorithm != algorithm:
        raise wire.WireError(f"a userauth request names {signable.algorithm[:40]!r}, the flags ask for {algorithm}")
    return algorithm, policy.decide_login(rules, signable, bindings)


def _fields(verdict: policy.Verdict, key: str | None = None) -> dict[str, object]:
    fields: dict[str, object] = {
        "verdict": "allowed" if verdict.allowed else "refused",
        "host": verdict.host,
        "user": verdict.user,
        "key": key,
        "namespace": verdict.namespace,
    }
    if not verdict.allowed:
        fields["reason"], fields["allow"] = verdict.reason, verdict.allow
    return fields
