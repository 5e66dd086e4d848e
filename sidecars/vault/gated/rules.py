"""Which requests would change a branch or tag of a gated repository without its gate. Pure.

Rules of this file:
- what a forge offers grows, so in the gated repository every write is refused that the roster does not name as open;
- a path counts in every reading (`canonical.readings`) when it refuses, and only as it is sent when it permits;
- what names its repository in the body, or not at all, is refused in every repository, or its body is judged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from urllib.parse import unquote_to_bytes

from ...roster.model import Forge, Provider
from ..canonical import readings, separated
from . import commands, graphql
from .gates import UNKNOWN, Gate

Judge = Callable[[bytes, bytes, bytes], str]
"""From the content type, the query and the whole body to why the request is refused; empty: it is not."""

_READS = frozenset((b"GET", b"HEAD", b"OPTIONS"))
_STRICT = Forge(
    repository=("/{everything}",),
    open=("/**/git-upload-pack", "/**/info/lfs/**"),
    graphql=("/graphql", "/**/graphql"),
)
"""For an upstream on the gate's host of which the roster says nothing: it is only read."""
_ID = rb"(?:(?!%2F)[^/])+"
"""A project that is named by one segment without a slash in it: by its number."""
_PLACEHOLDERS = re.compile(r"(\{[a-z]+\}|\*\*|\*)")
_LETTERS = {"k": rb"(?:k|%E2%84%AA)", "s": rb"(?:s|%C5%BF)", "i": rb"(?:i|%C4%B0|%C4%B1)"}
"""Letters beyond ASCII that a database may fold onto these (Kelvin's sign, the long s, the Turkish i)."""


def guard_of(provider: Provider, hosts: Iterable[str], gate: Gate | None) -> Guard | None:
    """The guard of a route of a scope that has a gate; None when the route does not lead to the gate's forge.

    Args:
        provider: with its placeholders filled.
        hosts: of its upstreams.
        gate: of the scope; None: it has none.
    """
    if gate is None:
        return None
    forge = provider.forge
    if gate == UNKNOWN:
        concerned = forge is not None or provider.custom
    else:
        named = {host.lower().partition(":")[0] for host in forge.hosts} if forge is not None else set()
        own = {host.lower() for host in hosts}
        concerned = gate.host in named | own or any(host.endswith(f".{gate.host}") for host in own)
    return Guard(forge or _STRICT, gate) if concerned else None


class Guard:
    """What a gate forbids on one route, compiled.

    Args:
        forge: where the provider's paths name repositories, and which writes change none.
        gate: the scope's.
    """

    def __init__(self, forge: Forge, gate: Gate) -> None:
        self.gate, self._mutations = gate, frozenset(forge.mutations)
        name = _name(gate.repository)
        self._gated = _union(forge.repository, name, below=True)
        by_id = [pattern for pattern in forge.repository if "{project}" in pattern]
        self._by_id = _union(by_id, _ID, below=True)
        self._open = _union(forge.open, name, project=rb"(?:%b|%b)" % (name, _ID))
        self._closed = _union(forge.closed, name)
        self._graphql = _union(forge.graphql, name)
        self._commands = _union(forge.commands, name)

    def __repr__(self) -> str:
        return f"<Guard {self.gate.host}/{self.gate.repository}>"

    def refuses(self, methods: Iterable[bytes], path: bytes, query: bytes) -> str:
        """Why a request is refused; empty when it is not, or not before its body is judged.

        Args:
            methods: the method, and those that a server may take it for (`canonical.methods`).
            path: as it is sent, in its canonical form.
            query: as it is sent, without the question mark.
        """
        ways = readings(path)
        if _any(self._graphql, ways):
            return "" if not query else "A GraphQL request with a query in its address is not passed on"
        # git asks for the refs to push with a GET: refused there, it says so before it packs anything
        if _READS.issuperset(methods) and b"git-receive-pack" not in unquote_to_bytes(query):
            return ""
        if _any(self._closed, ways):
            return "This may change branches of a repository that it does not name"
        if self._open.fullmatch(path) and self._open.fullmatch(separated(path)):
            return ""
        if _any(self._gated, ways):
            return "Its branches and tags are changed through its gate only"
        if self._by_id.fullmatch(path):
            return "A project named by its number may be the gated one"
        return ""

    def judge(self, methods: Iterable[bytes], path: bytes) -> Judge | None:
        """What decides about the body of a request that is not refused by its path; None: nothing need."""
        ways = readings(path)
        if _any(self._graphql, ways):
            return None if _READS.issuperset(methods) else self._judge_graphql
        if not _READS.issuperset(methods) and _any(self._commands, ways):
            return commands.refuses
        return None

    def _judge_graphql(self, content_type: bytes, _query: bytes, body: bytes) -> str:
        return graphql.refuses(content_type, body, self._mutations)


def _any(patterns: re.Pattern[bytes], ways: Iterable[bytes]) -> bool:
    return any(patterns.fullmatch(way) is not None for way in ways)


def _name(repository: str) -> bytes:
    """The repository's name in every spelling that a forge may take for it."""
    if not repository:
        return rb"[^/]+(?:/[^/]+)+?"
    letters = (_LETTERS.get(letter) or re.escape(letter.encode()) for letter in repository.lower())
    return b"".join(rb"(?:/|%2F)" if letter == b"/" else letter for letter in letters) + rb"(?:\.git)?(?:%20)*"


def _union(patterns: Iterable[str], name: bytes, *, project: bytes = b"", below: bool = False) -> re.Pattern[bytes]:
    """The patterns as one expression.

    Args:
        patterns: as in the roster.
        name: what `{repository}` stands for.
        project: what `{project}` stands for; empty: the same.
        below: with every path below them.
    """
    meanings = {"{repository}": name, "{project}": project or name, "{everything}": b".*", "**": b".*", "*": b"[^/]*"}

    def compiled(pattern: str) -> bytes:
        parts = _PLACEHOLDERS.split(pattern)
        return b"".join(meanings[part] if part in meanings else re.escape(part.encode()) for part in parts)

    every = b"|".join(compiled(pattern) for pattern in patterns)
    return re.compile(rb"(?:%b)%b" % (every or rb"(?!)", rb"(?:/.*)?" if below else b""), re.IGNORECASE)
