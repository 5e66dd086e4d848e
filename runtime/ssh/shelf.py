"""The operator's view of the stored SSH keys: find, describe, add and change them in the vault."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...sidecars.ssh import keys, policy
from ...sidecars.ssh.keyring import public_of
from ...sidecars.ssh.settings import KIND
from ...sidecars.store.keys import ensure_unlocked, key_files
from ...sidecars.store.store import Store
from ...supervisor.ground import paste
from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import check_name
from ..kit import opening

if TYPE_CHECKING:
    from ...sidecars.store.records import Entry
    from ..kit.env import Env


@dataclass
class Key:
    """One stored key without its secret; `save` it after a change.

    Attributes:
        name: its name in the vault.
        public: `TYPE BASE64`.
        comment: what `ssh-add -l` shows.
        scopes: whose containers may use it.
        default: scopes that list it first.
        policies: by scope, the document that `policy.parse` reads.
        created: seconds since 1970.
    """

    name: str
    public: str
    comment: str
    scopes: list[str] = field(default_factory=list)
    default: list[str] = field(default_factory=list)
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)
    created: float = 0.0

    @classmethod
    def from_entry(cls, entry: Entry) -> Key:
        """The key that a row of the store describes."""
        meta = entry.meta
        return cls(
            name=entry.name,
            public=str(meta.get("public", "")),
            comment=str(meta.get("comment", "")),
            scopes=list(meta.get("scopes", [])),
            default=list(meta.get("default", [])),
            policies=dict(meta.get("policy", {})),
            created=float(meta.get("created", 0)),
        )

    @property
    def type(self) -> str:
        """The key's type, as SSH names it."""
        return self.public.partition(" ")[0]

    @property
    def fingerprint(self) -> str:
        """SHA256:..., as OpenSSH prints it."""
        return keys.fingerprint(public_of({"public": self.public}))

    @property
    def line(self) -> str:
        """The line for an authorized_keys file or for a Git host's settings page."""
        return f"{self.public} {self.comment}".rstrip()

    def meta(self) -> dict[str, object]:
        """What the store keeps beside the secret."""
        return {
            "public": self.public,
            "type": self.type,
            "comment": self.comment,
            "scopes": self.scopes,
            "default": self.default,
            "policy": self.policies,
            "created": self.created,
        }

    def document(self) -> dict[str, object]:
        """The key as --json shows it."""
        return {"name": self.name, "fingerprint": self.fingerprint, **self.meta()}

    def policy(self, scope: str) -> dict[str, Any]:
        """The policy document for `scope`, to be changed in place.

        Raises:
            TerokError: the key is not linked to that scope.
        """
        if scope not in self.scopes:
            fix = paste.command("terok", "ssh", "link", self.name, "--scope", scope)
            raise TerokError(f"The key {self.name} is not linked to the scope {scope}.", fix=fix, code=Exit.NOT_FOUND)
        return self.policies.setdefault(scope, {})

    def link(self, scope: str, *, default: bool) -> None:
        """Let `scope` use the key; `default` lists it first there."""
        if scope not in self.scopes:
            self.scopes.append(scope)
        if default and scope not in self.default:
            self.default.append(scope)

    def unlink(self, scope: str) -> None:
        """Take the key, and what its policy for `scope` says, away from `scope`."""
        self.scopes = [other for other in self.scopes if other != scope]
        self.default = [other for other in self.default if other != scope]
        self.policies.pop(scope, None)


class Shelf:
    """The keys in the operator's vault; use it as a context manager.

    Args:
        env: where the vault is.
        create: make a vault when there is none, and show its recovery key on stderr.
    """

    def __init__(self, env: Env, *, create: bool = False) -> None:
        self._env = env
        layout = env.layout
        self._files = key_files(layout)
        if create:
            opening.make(env)
        self._store = Store.open(layout.vault_db)

    def __enter__(self) -> Shelf:
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()

    def all(self) -> list[Key]:
        """Every key, by name."""
        return [Key.from_entry(entry) for entry in self._store.describe(KIND, "")]

    def of_scope(self, scope: str) -> list[Key]:
        """The keys of one scope, its default first: the order in which the agent lists them."""
        mine = [key for key in self.all() if scope in key.scopes]
        return sorted(mine, key=lambda key: (scope not in key.default, key.name))

    def get(self, name: str) -> Key:
        """The key with this name; TerokError (NOT_FOUND) when there is none."""
        for key in self.all():
            if key.name == name:
                return key
        raise TerokError(f"There is no SSH key {name!r}.", fix="terok ssh list", code=Exit.NOT_FOUND)

    def add(self, name: str, private: keys.PrivateKey, *, comment: str, scopes: list[str], default: bool) -> Key:
        """Seal a private key under a new name.

        Raises:
            TerokError: the name or the key is there already, the key's type is not served, or the vault is locked.
        """
        check_name(name)
        for scope in scopes:
            check_name(scope)
        try:
            blob, record = keys.public_blob(private), keys.dump_private(private)
        except keys.KeyFormatError as error:
            raise TerokError(f"The key was not stored: {error}.", code=Exit.USAGE) from None
        public = public_line(blob)
        for other in self.all():
            if other.name == name:
                fix = f"choose another name, or terok ssh remove {paste.quoted(name)}"
                raise TerokError(f"An SSH key named {name} already exists.", fix=fix, code=Exit.REFUSED)
            if other.public == public:
                fix = paste.command("terok", "ssh", "link", other.name, "--scope", "SCOPE")
                raise TerokError(f"This key is already stored as {other.name}.", fix=fix, code=Exit.REFUSED)
        key = Key(name, public, comment, list(dict.fromkeys(scopes)), created=round(time.time(), 3))
        if default:
            key.default = list(key.scopes)
        self._unlock()
        self._make_room(key)
        self._store.put(KIND, "", name, record, key.meta())
        return key

    def save(self, key: Key) -> None:
        """Write a key's meta back; the agent sees it with its next request.

        Raises:
            TerokError: a policy of the key is not understood.
        """
        for scope, document in key.policies.items():
            try:
                policy.parse(document)
            except policy.PolicyError as error:
                raise TerokError(f"The policy of {key.name} for {scope} is wrong: {error}.", code=Exit.USAGE) from None
        self._make_room(key)
        self._store.set_meta(KIND, "", key.name, key.meta())

    def _make_room(self, key: Key) -> None:
        """A scope has one default key: take it from the others."""
        for other in self.all():
            if other.name != key.name and set(other.default) & set(key.default):
                other.default = [scope for scope in other.default if scope not in key.default]
                self._store.set_meta(KIND, "", other.name, other.meta())

    def secret(self, name: str) -> keys.PrivateKey:
        """The private key; TerokError when the vault is locked or the row does not open."""
        self._unlock()
        item = self._store.get(KIND, "", name)
        if item is None:
            raise TerokError(f"There is no SSH key {name!r}.", fix="terok ssh list", code=Exit.NOT_FOUND)
        try:
            return keys.load_private(item.secret)
        except keys.KeyFormatError as error:
            raise TerokError(f"The key {name} could not be read: {error}.") from None

    def rename(self, old: str, new: str) -> Key:
        """Give a key another name: it is sealed anew, because the name is part of what the seal protects."""
        key, private = self.get(old), self.secret(old)
        if any(other.name == check_name(new) for other in self.all()):
            raise TerokError(f"An SSH key named {new} already exists.", code=Exit.REFUSED)
        key.name = new
        self._store.put(KIND, "", new, keys.dump_private(private), key.meta())
        self._store.remove(KIND, "", old)
        return key

    def remove(self, name: str) -> None:
        """Delete a key for good; TerokError (NOT_FOUND) when there is none."""
        self.get(name)
        self._store.remove(KIND, "", name)

    def _unlock(self) -> None:
        ensure_unlocked(self._store, self._files)


def public_line(blob: bytes) -> str:
    """`TYPE BASE64` of a public blob."""
    from base64 import b64encode

    return f"{keys.kind_of(blob)} {b64encode(blob).decode()}"
