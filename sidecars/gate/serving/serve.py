"""One connection of the container: who asks, what for, and git's answer."""

from __future__ import annotations

import hmac
import json
import os
import re
import time

from ....supervisor.ground.errors import TerokError
from ...kit import answer
from ...kit.refusal import Refusal, Refused
from ...store.tokens import digest
from .. import config, git, refs, state
from ..site import make_scratch, remove_tree
from . import backend, channel, push
from .connection import Body, Connection, Gone
from .request import Request, tokens

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from ..site import Site

    class Tokens(Protocol):
        """The tokens that are good here."""

        def current(self) -> list[bytes]: ...


SERVICES = ("git-upload-pack", "git-receive-pack")
KEEP_SECONDS = 30.0
REFRESH_SECONDS = 30.0
"""How long a fetch waits for news from upstream; after that the mirror is served as it is."""

NEGOTIATION_MAX = 10 << 20
"""Bytes of a fetch's request; git-http-backend's own bound."""

REALM = 'Basic realm="terok gate", charset="UTF-8"'
LFS = "The gate does not carry Git LFS: large files are not mirrored. GIT_LFS_SKIP_SMUDGE=1 clones without them."
NO_STORE = {"Cache-Control": "no-store"}
_PROTOCOL = re.compile(r"[a-z0-9=:.-]{1,64}")


class Front:
    """Serves connections for one container.

    Args:
        site: the container and the scope.
        keeper: the channel to the keeper.
        tokens: the tokens that are good here.
    """

    def __init__(self, site: Site, keeper: int, tokens: Tokens) -> None:
        self.site, self.keeper, self.tokens = site, keeper, tokens
        self.config = config.GateConfig(url="")

    def serve(self, connection: Connection) -> None:
        """Answer requests until the client leaves or one is refused in a way that ends the connection."""
        try:
            self.config = config.load(self.site.home)
            connection.idle_seconds = self.config.limits.idle_seconds
            patience: float = self.config.limits.head_seconds
            while self._one(connection, patience):
                patience = KEEP_SECONDS
        except Gone:
            pass
        except Refused as error:
            self._refuse(connection, error.refusal)
        except TerokError as error:
            self._refuse(connection, Refusal(503, "gate", str(error)))

    def _one(self, connection: Connection, patience: float) -> bool:
        request = connection.read_head(keep_seconds=patience, head_seconds=self.config.limits.head_seconds)
        if request is None:
            return False
        body = Body(connection, request, limit=self.config.limits.pack_bytes + (2 << 20))
        if not self.knows(request):
            self._unauthorized(connection, request)
        else:
            handler = self.route(request)
            handler(self, connection, request, body)
        # an answer that was given before the body came leaves the rest of it in the way of the next request
        return body.drain(limit=64 << 10, seconds=5.0) and request.keep

    def knows(self, request: Request) -> bool:
        """Whether the request carries a token of this container; takes the same time for every wrong one."""
        given = [digest(token) for token in tokens(request.headers.get("authorization", ""))]
        equal = [hmac.compare_digest(one, other) for one in given for other in self.tokens.current()]
        return any(equal)

    def route(self, request: Request) -> Callable[[Front, Connection, Request, Body], None]:
        """The handler of a request, by its method and exact path.

        Raises:
            Refused: nothing is served there.
        """
        base = f"/{self.site.scope}.git/"
        if not request.path.startswith(base):
            raise Refused(404, "path", f"This gate serves /{self.site.scope}.git alone.")
        rest = request.path[len(base) :]
        if rest.startswith("info/lfs"):
            return Front._lfs
        if rest == "info/refs":
            methods = {"GET": Front._advertise}
        elif rest in SERVICES:
            methods = {"POST": Front._fetch if rest == SERVICES[0] else Front._push}
        else:
            raise Refused(404, "path", "The gate speaks git's smart HTTP protocol alone.")
        if request.method not in methods:
            raise Refused(405, "method", f"{request.path} takes {' and '.join(methods)}.")
        return methods[request.method]

    # -- handlers --

    def _lfs(self, connection: Connection, request: Request, body: Body) -> None:
        text = json.dumps({"message": LFS}).encode()
        connection.send(answer.answer(501, text, "application/vnd.git-lfs+json", close=False, fields=NO_STORE))
        self.note("lfs", verdict="refused", reason=LFS, allow="use the repository without Git LFS")

    def _advertise(self, connection: Connection, request: Request, body: Body) -> None:
        service = request.query.removeprefix("service=")
        if not request.query.startswith("service=") or service not in SERVICES:
            raise Refused(403, "service", "The gate speaks git's smart HTTP protocol alone.")
        if service == SERVICES[0]:
            self._refresh()
        self._backend(connection, request, body, "info/refs", request.query)

    def _fetch(self, connection: Connection, request: Request, body: Body) -> None:
        self.need_type(request, "application/x-git-upload-pack-request")
        body.limit = NEGOTIATION_MAX
        self._backend(connection, request, body, "git-upload-pack", "")

    def _push(self, connection: Connection, request: Request, body: Body) -> None:
        self.need_type(request, "application/x-git-receive-pack-request")
        push.receive(self, connection, body)

    def need_type(self, request: Request, wanted: str) -> None:
        """Refuse a body of another type (415), as git-http-backend does."""
        if request.headers.get("content-type") != wanted:
            raise Refused(415, "type", f"The body's type must be {wanted}.")

    def _refresh(self) -> None:
        """Let the keeper ask upstream when the mirror is old; what comes of it is in its log, not the client's."""
        seconds = self.config.refresh_seconds
        if not seconds or time.time() - state.State.peek(self.site.home).tried < seconds:
            return
        try:
            for _ in self.ask({"op": "refresh"}, seconds=REFRESH_SECONDS):
                pass
        except channel.ChannelError:
            pass

    def _backend(self, connection: Connection, request: Request, body: Body, path: str, query: str) -> None:
        """Let git-http-backend answer from the mirror."""
        scratch = self._own_view()
        try:
            self._run_backend(connection, request, body, scratch or self.site.home.repo, path, query)
        finally:
            if scratch:
                remove_tree(scratch)

    def _own_view(self) -> str:
        """A repository that shows this container's proposals for others' refs; "" when there are none."""
        overlay = state.overlay(self.site.home, self.site.container, self.config.mode)
        if not overlay:
            return ""
        shown = {**refs.visible(refs.read(self.site.home)), **overlay}
        shown = {ref: tip for ref, tip in shown.items() if not refs.is_zero(tip)}
        return make_scratch(self.site, self.config, f"view-{os.getpid()}", shown, self.config.default_branch)

    def _run_backend(
        self, connection: Connection, request: Request, body: Body, repository: str, path: str, query: str
    ) -> None:
        root, _, name = repository.rpartition("/")
        kind = request.headers.get("content-type", "")
        variables = git.backend_variables(root, f"/{name}/{path}", request.method, query, kind)
        protocol = request.headers.get("git-protocol", "")
        if _PROTOCOL.fullmatch(protocol):
            variables["GIT_PROTOCOL"] = protocol
        relay = backend.Relay(connection)
        limits = self.config.limits
        pairs = [*git.serving_config(self.site.home, limits), ("safe.directory", repository)]
        errors, code = backend.run(
            connection,
            variables,
            pairs,
            body,
            b"",
            relay.feed,
            seconds=limits.fetch_seconds,
            idle=limits.idle_seconds,
        )
        relay.finish(code, errors)

    # -- keeper --

    def ask(self, request: dict[str, object], *, seconds: float) -> Any:
        """`channel.ask` on this gate's keeper."""
        return channel.ask(self.keeper, request, seconds=seconds)

    def note(self, event: str, **fields: object) -> None:
        """Have the keeper write a line of the container's audit log."""
        try:
            for _ in self.ask({"op": "note", "event": event, "fields": fields}, seconds=5.0):
                pass
        except channel.ChannelError:
            pass

    # -- refusals --

    def _unauthorized(self, connection: Connection, request: Request) -> None:
        reason = "The gate needs this container's token (TEROK_GATE_TOKEN) as Basic user name or as bearer."
        if "authorization" in request.headers:
            self.note(
                "token", verdict="refused", reason="the token is not this container's", allow="use TEROK_GATE_TOKEN"
            )
        fields = {**NO_STORE, "WWW-Authenticate": REALM}
        connection.send(answer.answer(401, reason.encode() + b"\n", "text/plain", close=False, fields=fields))

    def _refuse(self, connection: Connection, refusal: Refusal) -> None:
        self.note(
            "request", verdict="refused", status=refusal.status, reason=refusal.why, allow="a request as git sends it"
        )
        if connection.answering:
            return  # what was promised can't be kept: the connection ends in the middle of the answer
        try:
            text = refusal.why.encode() + b"\n"
            connection.send(answer.answer(refusal.status, text, "text/plain", close=True, fields=NO_STORE))
            connection.linger()
        except Gone:
            pass
