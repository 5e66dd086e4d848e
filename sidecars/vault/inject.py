"""How a credential is put into a request: one way, for the relay and for `terok vault check`.

Rules of this file: routes hold an `Auth`, which knows names and prefixes; secret bytes stand in `Loaded` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..roster import model
from ..store.credential import Credential
from .headers import plain_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .guard.echo import Patterns

Pair = tuple[bytes, bytes]


class Auth:
    """How a secret is put into a request: `scheme` is `header` or `basic`.

    Attributes:
        headers: what else is set for this kind of credential.
        merge: by lower-case name: (name, value) whose items join the client's own comma-separated list.
        names: lower-case names of everything that is set, the secret's header among it; the client's do not cross.
    """

    __slots__ = ("scheme", "header", "prefix", "user", "headers", "merge", "names")

    def __init__(self, auth: model.Auth, headers: Mapping[str, str], merge: Mapping[str, str]) -> None:
        self.scheme = auth.scheme
        self.header = b"Authorization" if self.scheme == "basic" else _ascii(auth.header)
        self.prefix = _ascii(auth.prefix)
        self.user = auth.user or ""
        self.headers = _pairs({**headers, **auth.headers})
        self.merge = {name.lower(): (name, value) for name, value in _pairs({**merge, **auth.merge})}
        self.names = frozenset(plain_name(name.lower()) for name, _ in (*self.headers, (self.header, b"")))

    def __repr__(self) -> str:
        return f"<Auth {self.scheme} {self.header.decode()}>"

    def pairs(self, credential: Credential) -> tuple[Pair, ...]:
        """The headers that are set, the secret's last."""
        if self.scheme == "basic":
            from binascii import b2a_base64

            text = f"{credential.user or self.user}:{credential.secret}".encode()
            return (*self.headers, (self.header, b"Basic " + b2a_base64(text, newline=False)))
        return (*self.headers, (self.header, self.prefix + credential.secret.encode("ascii")))


class Loaded:
    """A credential, unsealed.

    Attributes:
        credential: its parts.
        version: of the store's row.
        secrets: everything in it that no answer may carry.
        patterns: what the echo guard looks for; made by the books.
    """

    __slots__ = ("credential", "version", "secrets", "patterns", "_lines")

    def __init__(self, credential: Credential, version: int, secrets: Iterable[bytes]) -> None:
        self.credential, self.version, self.secrets = credential, version, tuple(secrets)
        self.patterns: Patterns | None = None
        self._lines: dict[Auth, bytes] = {}

    def __repr__(self) -> str:
        return f"<Loaded {self.credential!r} version={self.version}>"

    def lines(self, auth: Auth) -> bytes:
        """The header lines that `auth` sets, each with its CRLF; made once for each way of sending."""
        lines = self._lines.get(auth)
        if lines is None:
            lines = self._lines[auth] = b"".join(b"%b: %b\r\n" % pair for pair in auth.pairs(self.credential))
        return lines


class _Nothing(Loaded):
    """What is put into a request that goes without a credential of the vault."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(Credential("none", ""), 0, ())

    def lines(self, auth: Auth) -> bytes:
        """None."""
        return b""


NOTHING: Loaded = _Nothing()


def _ascii(text: str) -> bytes:
    return text.encode("ascii")


def _pairs(headers: Mapping[str, str]) -> tuple[Pair, ...]:
    return tuple((_ascii(name), _ascii(value)) for name, value in headers.items())
