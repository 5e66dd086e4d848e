"""What the relay knows of the vault: tokens, routes and credentials, read again when they were changed.

Nothing is asked of a running sidecar when a token is revoked, a credential rotated or the vault locked: one pragma a
request tells that the database moved, and one stat(2) each that the routes or the gates did.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from ...supervisor.ground import paste
from ...supervisor.ground.errors import TerokError
from ..kit.dial import Endpoint
from ..kit.refusal import Refusal
from ..login.refresh import needed
from ..roster import catalog
from ..roster.model import Catalog
from ..store import credential
from ..store.keys import ensure_unlocked
from ..store.records import Authority, LockedError
from ..store.store import Store
from . import headers
from .gated import gates as gate_file
from .gated.gates import UNKNOWN, Gate
from .inject import Loaded
from .routes import Route
from .storage import routes_of
from .tokens import Grant, Places


class Reach(NamedTuple):
    """TCP ports and CA bundles of routes."""

    ports: frozenset[int]
    bundles: frozenset[str]

    def holds(self, other: Reach) -> bool:
        """Whether everything in `other` is in this one."""
        return other.ports <= self.ports and other.bundles <= self.bundles

    def covers(self, endpoint: Endpoint) -> bool:
        """Whether an upstream can be reached with it."""
        return endpoint.port in self.ports and (not endpoint.ca or endpoint.ca in self.bundles)


Stamp = tuple[int, int, int]


def _stat(path: str) -> Stamp | None:
    """What changes with a file's content."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


class Keeper:
    """The vault as one container sees it.

    Args:
        store: opened read-only before the process confined itself.
        routes: path of routes.json.
        gates: path of gates.json.
        key_files: where the data key may be.
        container: whose tokens count.
    """

    def __init__(self, store: Store, routes: str, gates: str, key_files: list[str], container: str) -> None:
        self._store, self._key_files, self._container = store, key_files, container
        self._routes_path, self._gates_path = routes, gates
        self._changes = -1
        self._looked: float | None = -1.0
        self.generation = 0
        """Grows whenever tokens, routes or credentials were read again."""
        self._stamp: Stamp | None = None
        self._gates_stamp: Stamp | None = None
        self._gates: dict[str, Gate] | None = {}
        self._catalog = Catalog()
        self._grants: dict[bytes, Grant] = {}
        self._routes: dict[Grant, Route] = {}
        self._loaded: dict[Grant, Loaded] = {}
        self._storage: Mapping[bytes, tuple[Grant, Route]] | None = None
        self.places = Places(headers.CLIENT_AUTH - headers.COOKIES, frozenset())
        self.trouble = ""
        """Why the routes could not be read; the ones before stay in use."""

    def look(self, now: float | None = None) -> None:
        """Notice what changed; with the time of the loop's turn at most once in it."""
        if now == self._looked:
            return
        if now is not None:
            self._looked = now
        changes = self._store.changes()
        if changes != self._changes:
            self._changes = changes
            self.generation += 1
            self._grants = {
                token.digest: Grant(token.scope, token.provider) for token in self._store.tokens(self._container)
            }
            self._routes.clear()
            self._storage = None
            self._loaded.clear()
            self._set_places()
        stamp = _stat(self._routes_path)
        if stamp != self._stamp:
            self._read_routes(stamp)
        stamp = _stat(self._gates_path)
        if stamp != self._gates_stamp:
            self._read_gates(stamp)

    def _read_gates(self, stamp: Stamp | None) -> None:
        """Closed when it cannot be read: any repository may be the gated one then."""
        try:
            self._gates = gate_file.load(self._gates_path)
        except TerokError:
            self._gates = None
        self._gates_stamp = stamp
        self.generation += 1
        self._routes.clear()
        self._storage = None

    def _gate(self, scope: str) -> Gate | None:
        return UNKNOWN if self._gates is None else self._gates.get(scope)

    def _read_routes(self, stamp: Stamp | None) -> None:
        try:
            self._catalog = catalog.load(self._routes_path)
        except TerokError as error:
            self.trouble = error.what
            return
        self._stamp, self.trouble = stamp, ""
        self.generation += 1
        self._routes.clear()
        self._storage = None
        self._loaded.clear()
        self._set_places()

    def _set_places(self) -> None:
        """Where clients put tokens: what the catalogue says, and the headers that credentials bring themselves."""
        named = set(self._catalog.token_headers)
        for scope in {grant.scope for grant in self._grants.values()}:
            for entry in self._store.describe(credential.KIND, scope):
                if entry.meta.get("auth_header"):
                    named.add(str(entry.meta["auth_header"]))
        query = {
            name.lower().encode("ascii")
            for provider in self._catalog.providers.values()
            for name in provider.token_query
        }
        names = {headers.plain_name(name.lower().encode("ascii")) for name in named}
        self.places = Places((headers.CLIENT_AUTH | names) - headers.COOKIES, frozenset(query))

    def lookup(self, digest: bytes) -> Grant | None:
        """What a token stands for, by its SHA-256."""
        return self._grants.get(digest)

    def reach(self) -> Reach:
        """What the routes of this container's tokens need: the confinement is made for it.

        A token whose credential is still missing counts with what its provider has by default, so that adding
        the credential later needs no new process.
        """
        ports: set[int] = {443}
        bundles: set[str] = set()
        for grant in set(self._grants.values()):
            answer = self.route(grant)
            for route in [answer] if isinstance(answer, Route) else self._default_routes(grant.provider):
                ports.update(target.endpoint.port for target in route.targets)
                bundles.update(target.endpoint.ca for target in route.targets if target.endpoint.ca)
        return Reach(frozenset(ports), frozenset(bundles))

    def _default_routes(self, name: str) -> list[Route]:
        provider = self._catalog.provider(name)
        if provider is None:
            return []
        routes = []
        for kind in provider.auth:
            try:
                routes.append(Route(name, catalog.effective(provider, {}), kind))
            except TerokError:
                pass  # it needs a value that only the credential has
        return routes

    def scopes(self) -> set[str]:
        """The scopes of this container's tokens."""
        return {grant.scope for grant in self._grants.values()}

    def logins(self) -> bool:
        """Whether a credential that this container may use is a login (OAuth)."""
        return any(needed(self._store, scope) for scope in self.scopes())

    def route(self, grant: Grant) -> Route | Refusal:
        """The route for a grant, or why there is none."""
        known = self._routes.get(grant)
        if known is not None:
            return known
        provider = self._catalog.provider(grant.provider)
        if provider is None:
            why = self.trouble or f"There is no route for the provider {grant.provider}."
            allow = "terok vault routes" if self.trouble else "add it to the roster and run `terok vault routes`"
            return Refusal(503 if self.trouble else 403, "no-route", why, allow, grant.provider, grant.scope)
        entries = self._store.describe(credential.KIND, grant.scope)
        entry = next((row for row in entries if row.name == grant.provider), None)
        if entry is None:
            why = f"The scope {grant.scope} has no credential for {grant.provider}."
            allow = paste.command("terok", "vault", "add", grant.scope, grant.provider)
            return Refusal(403, "no-credential", why, allow, grant.provider, grant.scope)
        try:
            kind = str(entry.meta.get("auth", "api-key"))
            ambient, foreign = bool(entry.meta.get("ambient")), entry.meta.get("foreign") == "allow"
            effective = catalog.effective(provider, entry.meta)
            gate = self._gate(grant.scope)
            route = Route(grant.provider, effective, kind, gate, ambient=ambient, foreign_allowed=foreign)
        except TerokError as error:
            return Refusal(503, "route-broken", error.what, error.fix, grant.provider, grant.scope)
        self._routes[grant] = route
        return route

    def at(self, host: str, port: int) -> list[tuple[Grant, Route]]:
        """The providers of this container whose credentials are for a host and port, by name."""
        routes = [(grant, self.route(grant)) for grant in sorted(set(self._grants.values()))]
        return [
            (grant, route)
            for grant, route in routes
            if isinstance(route, Route) and any(target.is_at(host, port) for target in route.targets)
        ]

    def storage(self) -> Mapping[bytes, tuple[Grant, Route]]:
        """The storage hosts of this container's providers, by name."""
        if self._storage is None:
            grants = sorted(set(self._grants.values()))
            known = [(grant, self._catalog.provider(grant.provider)) for grant in grants]
            self._storage = routes_of((grant, provider) for grant, provider in known if provider is not None)
        return self._storage

    def is_upstream(self, host: str) -> bool:
        """Whether a host is an upstream of this container's routes."""
        routes = [route for grant in set(self._grants.values()) if isinstance(route := self.route(grant), Route)]
        return any(target.endpoint.host == host for route in routes for target in route.targets)

    def authority(self) -> Authority | None:
        """The container's certificate authority; raises LockedError, and TerokError when it is damaged."""
        ensure_unlocked(self._store, self._key_files)
        return self._store.authority(self._container)

    def credential(self, grant: Grant) -> Loaded | Refusal:
        """The credential behind a grant, unsealed; or why the vault does not give it."""
        known = self._loaded.get(grant)
        if known is not None:
            return known
        try:
            ensure_unlocked(self._store, self._key_files)
            item = self._store.get(credential.KIND, grant.scope, grant.provider)
            if item is None:
                why = f"The scope {grant.scope} has no credential for {grant.provider}."
                allow = paste.command("terok", "vault", "add", grant.scope, grant.provider)
                return Refusal(403, "no-credential", why, allow, grant.provider, grant.scope)
            loaded = Loaded(credential.parse(item), item.version, credential.secrets_of(item))
        except LockedError as error:
            return Refusal(503, "locked", error.what, error.fix, grant.provider, grant.scope)
        except TerokError as error:
            return Refusal(503, "credential-broken", error.what, error.fix, grant.provider, grant.scope)
        self._loaded[grant] = loaded
        return loaded
