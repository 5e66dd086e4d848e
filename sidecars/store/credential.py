"""What a row of kind "credential" holds, for everybody who reads or writes one.

`meta["auth"]` says what its secret bytes are:

- `api-key`: the key itself, UTF-8;
- `basic`: the password or token of HTTP Basic (RFC 7617); the user is `meta["user"]` or the route's;
- `oauth`: a JSON object with `access_token`, and where known `refresh_token`, `expires_at` (Unix seconds), `scopes`
  (list) and `id_token`.

Further meta, none of it secret: `variables` (values for the route's placeholders, such as `host` and `account_id`),
`upstream`, `allow_private`, `ca_bundle`, `auth_header`, `auth_prefix` (overrides of the route), `expires_at`, `account`
(a name to show), `source` (where it came from), `refresh` (the state of the last refresh),
`ambient` (it goes with requests to its hosts that carry no credential), `foreign` (`allow`: requests to its hosts may
carry a credential of the client's own).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from ...supervisor.ground import paste
from ...supervisor.ground.errors import TerokError

if TYPE_CHECKING:
    from .records import Item

KIND = "credential"
AUTH_KINDS = ("api-key", "oauth", "basic")
SECRET_FIELDS = ("access_token", "refresh_token", "id_token")
"""The members of an OAuth credential that are secret."""


class Credential(NamedTuple):
    """A credential, ready to use; its repr shows no secret.

    Attributes:
        auth: one of `AUTH_KINDS`.
        secret: what is put into the request.
        user: for `basic`: the user, or None for the route's.
        refresh_token, expires_at (Unix seconds), scopes, id_token: for `oauth`, where known.
    """

    auth: str
    secret: str
    user: str | None = None
    refresh_token: str | None = None
    expires_at: float | None = None
    scopes: tuple[str, ...] = ()
    id_token: str | None = None

    def __repr__(self) -> str:
        return f"Credential({self.auth!r}, expires_at={self.expires_at})"

    def encode(self) -> bytes:
        """The secret bytes of the row."""
        if self.auth != "oauth":
            return self.secret.encode()
        fields: dict[str, object] = {"access_token": self.secret}
        if self.refresh_token:
            fields["refresh_token"] = self.refresh_token
        if self.expires_at is not None:
            fields["expires_at"] = self.expires_at
        if self.scopes:
            fields["scopes"] = list(self.scopes)
        if self.id_token:
            fields["id_token"] = self.id_token
        return json.dumps(fields).encode()


def parse(item: Item) -> Credential:
    """The credential in a row.

    Raises:
        TerokError: the row does not hold what its meta says; the message names the row, never its content.
    """
    auth = item.meta.get("auth", "api-key")
    wrong = TerokError(
        f"The credential {item.scope}/{item.name} is damaged.",
        fix=paste.command("terok", "vault", "add", item.scope, item.name),
    )
    try:
        text = item.secret.decode()
        if auth != "oauth":
            return Credential(auth, text, user=item.meta.get("user"))
        fields = json.loads(text)
        login = Credential(
            auth,
            fields["access_token"],
            refresh_token=fields.get("refresh_token"),
            expires_at=fields.get("expires_at"),
            scopes=tuple(fields.get("scopes", ())),
            id_token=fields.get("id_token"),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise wrong from None
    texts = (login.refresh_token, login.id_token)
    if not isinstance(login.secret, str) or not all(text is None or isinstance(text, str) for text in texts):
        raise wrong
    if login.expires_at is not None and type(login.expires_at) not in (int, float):
        raise wrong
    return login


def secrets_of(item: Item) -> list[bytes]:
    """Every byte string in the row that must never be seen outside, longest first."""
    if item.kind != KIND:
        return [item.secret]
    credential = parse(item)
    texts = {text for text in (credential.secret, credential.refresh_token, credential.id_token) if text}
    return sorted((text.encode() for text in texts), key=len, reverse=True)


def check_secret(text: str) -> str:
    """Return `text` when a header can carry it (RFC 9110, 5.5: visible ASCII here).

    Raises:
        TerokError: it is empty or has another character; the message does not show it.
    """
    if not text:
        raise TerokError("The secret is empty.")
    if not all("!" <= character <= "~" for character in text):
        raise TerokError(
            "The secret has a space, a line break or a character that is not ASCII: no header can carry it."
        )
    return text
