"""The unlock tiers: each keeps the vault's one data key wrapped under a key of its own kind.

    tier             its key comes from                                     opens the vault
    key-file         32 random bytes in vault/key, 0600                     by itself
    passphrase       scrypt of what a person types                          terok vault unlock, asks
    command          scrypt of what a program of the operator's prints      terok vault unlock
    systemd-creds    32 random bytes, encrypted by systemd-creds(1)         terok vault unlock
    keyring          32 random bytes in the desktop's keyring               terok vault unlock
    recovery         the recovery key that was shown once                   terok vault unlock --recovery

`unlock` puts the data key into a 0600 file under the runtime directory; sidecars read key files and nothing else.
Everything that asks another program is bounded in time and fails closed: no key, no unlocking, an error that says why.
"""

from __future__ import annotations

import base64
import os
import unicodedata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ...supervisor.ground import process, within
from ...supervisor.ground.errors import Exit, TerokError
from .keys import KEY_FILE_TIER, unwrap, wrap
from .records import LockedError
from .recovery import RECOVERY_TIER
from .seal import KEY_SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .store import Store

PASSPHRASE = "passphrase"
COMMAND = "command"
SYSTEMD = "systemd-creds"
KEYRING = "keyring"

UNLOCK_ORDER = (KEYRING, SYSTEMD, COMMAND, PASSPHRASE)
"""In which order `unlock` tries what is there: a person is asked last."""

COMMAND_SECONDS = 60.0
"""For a passphrase command, which may show a dialogue of its own."""

PROGRAM_SECONDS = 20.0
KEYRING_SECONDS = 20.0

SCRYPT = {"n": 1 << 17, "r": 8, "p": 1}
"""128 MiB and some tenths of a second for each guess (OWASP Password Storage Cheat Sheet: N=2^17, r=8, p=1)."""

SCRYPT_MEMORY_MAX = 1 << 30
SCRYPT_WORK_MAX = 1 << 24
"""n * r * p; 16 times what a new tier gets."""

_CREDENTIAL_NAME = "terok-vault"
_KEYRING_SERVICE = "terok-vault"
_PASSED_ON = (
    "HOME",
    "USER",
    "LOGNAME",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "DBUS_SESSION_BUS_ADDRESS",
    "TERM",
) + ("DISPLAY", "WAYLAND_DISPLAY", "GNUPGHOME", "GPG_TTY", "SSH_AUTH_SOCK", "PASSWORD_STORE_DIR")
"""The operator's variables that a password program needs to find its agent or its dialogue."""


def add_passphrase(store: Store, data_key: bytes, passphrase: str) -> None:
    """Add the passphrase tier, or change its passphrase: 32 bytes are wrapped again, nothing else is touched."""
    key, parameters = stretch_new(passphrase)
    wrap(store, PASSPHRASE, key, data_key, parameters)


def open_passphrase(store: Store, passphrase: str) -> bytes:
    """The data key; LockedError when the passphrase is wrong."""
    return _open_stretched(store, PASSPHRASE, passphrase, "The passphrase is wrong.")


def add_command(store: Store, data_key: bytes, argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Add a passphrase command; it is run once, so that one that does not work is not stored."""
    key, parameters = stretch_new(run_command(argv, environ))
    wrap(store, COMMAND, key, data_key, {**parameters, "argv": list(argv)})


def open_command(store: Store, environ: Mapping[str, str]) -> bytes:
    """The data key; LockedError when the command fails or prints another passphrase than at first."""
    argv = _parameters(store, COMMAND).get("argv")
    if not isinstance(argv, list) or not argv or not all(isinstance(word, str) and word for word in argv):
        raise _damaged(COMMAND)
    return _open_stretched(
        store, COMMAND, run_command(argv, environ), f"{argv[0]} printed a passphrase that does not open the vault."
    )


def run_command(argv: Sequence[str], environ: Mapping[str, str]) -> str:
    """The first line that the operator's command prints.

    Raises:
        LockedError: it could not be started, failed, printed nothing or took longer than 60 s.
    """
    try:
        result = process.run(list(argv), timeout=COMMAND_SECONDS, env=_environment(environ))
    except TerokError as error:
        raise LockedError(f"The passphrase command failed: {error.what}") from None
    if result.code != 0:
        raise LockedError(f"The passphrase command {argv[0]} failed with exit code {result.code}.")
    line = result.out.decode("utf-8", "replace").partition("\n")[0].rstrip("\r")
    if not line:
        raise LockedError(f"The passphrase command {argv[0]} printed nothing.")
    return line


def systemd_creds(*, root: bool) -> list[str]:
    """The systemd-creds command that can be used here.

    Args:
        root: the outer user is root; others need --user, which systemd 256 brought.

    Raises:
        TerokError: the program is missing or too old.
    """
    program = process.find("systemd-creds")
    if program is None:
        raise TerokError("There is no systemd-creds on this host.", fix="use another tier", code=Exit.REFUSED)
    first = process.run([program, "--version"], timeout=PROGRAM_SECONDS).out.decode(errors="replace").split()
    version = int(first[1]) if len(first) > 1 and first[1].isdigit() else 0
    if version < 256 and not root:
        raise TerokError(
            f"systemd-creds {version} works for root only; users need version 256.",
            fix="use another tier",
            code=Exit.REFUSED,
        )
    return [program] if root else [program, "--user"]


def add_systemd(store: Store, data_key: bytes, environ: Mapping[str, str], *, root: bool) -> None:
    """Add the systemd-creds tier: the key is bound to this host (and its TPM, when there is one)."""
    key = os.urandom(KEY_SIZE)
    argv = [*systemd_creds(root=root), "encrypt", f"--name={_CREDENTIAL_NAME}", "-", "-"]
    sealed = _program(argv, base64.b64encode(key), environ)
    if _systemd_key(sealed, environ, root=root) != key:
        raise LockedError("systemd-creds did not give back what it had encrypted.")
    wrap(store, SYSTEMD, key, data_key, {"sealed": sealed.decode("ascii", "replace")})


def open_systemd(store: Store, environ: Mapping[str, str], *, root: bool) -> bytes:
    """The data key; LockedError when systemd-creds does not give the tier's key."""
    sealed = _text(store, SYSTEMD, "sealed").encode()
    return unwrap(store, SYSTEMD, _systemd_key(sealed, environ, root=root))


def _systemd_key(sealed: bytes, environ: Mapping[str, str], *, root: bool) -> bytes:
    argv = [*systemd_creds(root=root), "decrypt", f"--name={_CREDENTIAL_NAME}", "-", "-"]
    return _key(_program(argv, sealed, environ), SYSTEMD)


def add_keyring(store: Store, data_key: bytes) -> None:
    """Add the keyring tier; LockedError when no keyring answers."""
    if find_spec("keyring") is None:
        raise TerokError(
            "The Python package keyring is not installed.", fix="pip install 'terok-host[keyring]'", code=Exit.REFUSED
        )
    key, user = os.urandom(KEY_SIZE), os.urandom(8).hex()
    text = base64.b64encode(key).decode()

    def body() -> tuple[bytes, list[int]]:
        import keyring

        keyring.set_password(_KEYRING_SERVICE, user, text)
        return (keyring.get_password(_KEYRING_SERVICE, user) or "").encode(), []

    if _keyring(body) != text.encode():
        raise LockedError("The keyring did not keep the key.")
    wrap(store, KEYRING, key, data_key, {"user": user})


def open_keyring(store: Store) -> bytes:
    """The data key; LockedError when the keyring does not answer or has no key."""
    user = _text(store, KEYRING, "user")

    def body() -> tuple[bytes, list[int]]:
        import keyring

        return (keyring.get_password(_KEYRING_SERVICE, user) or "").encode(), []

    return unwrap(store, KEYRING, _key(_keyring(body), KEYRING))


def forget_keyring(store: Store) -> None:
    """Delete the key from the keyring, when one answers."""
    try:
        user = _text(store, KEYRING, "user")
    except LockedError:
        return  # a damaged tier does not say what to delete

    def body() -> tuple[bytes, list[int]]:
        import keyring

        keyring.delete_password(_KEYRING_SERVICE, user)
        return b"", []

    try:
        _keyring(body)
    except LockedError:
        pass  # what stays there opens nothing any more


def strength(store: Store) -> str:
    """One sentence about how well the vault is protected now, for `status` and `doctor`."""
    have = store.tiers().keys()
    if KEY_FILE_TIER in have:
        return (
            "weak: a key file beside the vault opens it; a copy of your files (a backup, a stolen disk) "
            "reveals the secrets"
        )
    if PASSPHRASE in have:
        return "good: a passphrase opens it; as strong as the passphrase"
    if have & {SYSTEMD, KEYRING}:
        return "good: this host or your session opens it; a copy of your files alone does not"
    return "good: your passphrase command opens it" if COMMAND in have else "only the recovery key opens it"


def others(store: Store, tier: str) -> set[str]:
    """The tiers besides `tier` that could open the vault, without the recovery key."""
    return store.tiers().keys() - {tier, RECOVERY_TIER}


def stretch_new(passphrase: str) -> tuple[bytes, dict[str, object]]:
    """A key from a passphrase, with a new salt; the parameters give the same key again in `stretch`."""
    parameters: dict[str, object] = {"salt": os.urandom(16).hex(), **SCRYPT}
    return stretch(passphrase, parameters), parameters


def stretch(passphrase: str, parameters: Mapping[str, object]) -> bytes:
    """The key of a passphrase (RFC 7914).

    Raises:
        LockedError: the parameters are damaged, or ask for more than 1 GiB or more time than a guess should take.
    """
    salt = parameters.get("salt")
    n, r, p = (parameters.get(name) for name in ("n", "r", "p"))
    if not isinstance(salt, str) or type(n) is not int or type(r) is not int or type(p) is not int or min(n, r, p) < 1:
        raise LockedError("The parameters for scrypt are damaged.")
    if 128 * n * r > SCRYPT_MEMORY_MAX or n * r * p > SCRYPT_WORK_MAX:
        raise LockedError("The tier wants more memory or time for scrypt than this program gives.")
    text = unicodedata.normalize("NFC", passphrase).encode()
    memory = 128 * n * r + (16 << 20)
    import hashlib  # OpenSSL's, which a process that asks for no passphrase need not load

    try:
        return hashlib.scrypt(text, salt=bytes.fromhex(salt), n=n, r=r, p=p, maxmem=memory, dklen=KEY_SIZE)
    except ValueError:
        raise LockedError("The parameters for scrypt are damaged.") from None


def _open_stretched(store: Store, tier: str, passphrase: str, wrong: str) -> bytes:
    key = stretch(passphrase, _parameters(store, tier))
    try:
        return unwrap(store, tier, key)
    except LockedError:
        raise LockedError(wrong) from None


def _parameters(store: Store, tier: str) -> dict[str, object]:
    wrapped = store.tiers().get(tier)
    if wrapped is None:
        raise LockedError(f"The vault has no {tier} tier.", fix="terok vault status")
    return wrapped[1]


def _text(store: Store, tier: str, name: str) -> str:
    value = _parameters(store, tier).get(name)
    if not isinstance(value, str):
        raise _damaged(tier)
    return value


def _damaged(tier: str) -> LockedError:
    return LockedError(
        f"The {tier} tier is damaged: it was changed outside of terok.", fix="terok vault unlock --recovery"
    )


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    return {**process.CLEAN_ENV, **{name: environ[name] for name in _PASSED_ON if name in environ}}


def _program(argv: list[str], stdin: bytes, environ: Mapping[str, str]) -> bytes:
    try:
        result = process.run(argv, stdin=stdin, timeout=PROGRAM_SECONDS, env=_environment(environ))
    except TerokError as error:
        raise LockedError(error.what) from None
    if result.code != 0:
        raise LockedError(f"{os.path.basename(argv[0])} failed: {result.error[:200]}")
    return result.out


def _key(text: bytes, tier: str) -> bytes:
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except ValueError:
        key = b""
    if len(key) != KEY_SIZE:
        raise LockedError(f"The {tier} tier gave no key.")
    return key


def _keyring(body: Any) -> bytes:
    """Run `body` in a child: a keyring that shows a dialogue or hangs on D-Bus is killed after 20 s."""
    try:
        return within.call_in(process.Namespaces(), body, timeout=KEYRING_SECONDS)[0]
    except TerokError as error:
        raise LockedError(f"The keyring did not answer: {error.what[:200]}") from None
