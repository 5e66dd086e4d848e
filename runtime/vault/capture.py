"""Reading a vendor's own credential file, as the roster's `capture` of an agent describes it.

A capture is `{provider, auth, file, format, fields, variables, command, environ, hint}`: `fields` says where in the
file the parts of the credential are, as keys joined by `/` (`*`: the first member). In `env` and `text` files a
field is one whole key. The vendors' files hold more than we take; what is not named stays where it is.
"""

from __future__ import annotations

import configparser
import json
import os
import stat
from typing import TYPE_CHECKING, Any

from ...sidecars.login.refresh import jwt_expiry
from ...sidecars.store.credential import Credential, check_secret
from ...supervisor.ground.errors import Exit, TerokError
from .leaks import open_parent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...sidecars.roster.model import Capture

SIZE_MAX = 1 << 20


def read_file(path: str, *, beneath: str | None = None) -> str:
    """A credential file's text.

    Args:
        path: the file.
        beneath: `path` is relative to this directory, which a container could write: no link in it is followed.

    Raises:
        TerokError: it is missing (NOT_FOUND), no regular file, larger than 1 MiB, or not text.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        if beneath is None:
            fd = os.open(path, flags)
        else:
            directory, name = open_parent(beneath, path)
            try:
                fd = os.open(name, flags | os.O_NOFOLLOW, dir_fd=directory)
            finally:
                os.close(directory)
    except FileNotFoundError:
        raise TerokError(f"{path} does not exist.", code=Exit.NOT_FOUND) from None
    except OSError as error:
        raise TerokError(f"Could not read {path}: {error.strerror}.") from error
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise TerokError(f"{path} is not a regular file.")
        data = file.read(SIZE_MAX + 1)
    if len(data) > SIZE_MAX:
        raise TerokError(f"{path} is larger than 1 MiB.")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise TerokError(f"{path} is not text.") from None


def read(capture: Capture, text: str, source: str) -> tuple[Credential, dict[str, object]]:
    """The credential in a vendor's file, and its meta.

    Args:
        capture: how to read it.
        text: the file's content.
        source: its path, for messages and for the meta.

    Raises:
        TerokError: the file does not hold such a credential. The message shows nothing of its content.
    """
    try:
        tree = _PARSERS[capture.format](text)
    except Exception:  # noqa: BLE001 - each format's parser has errors of its own, and their texts quote the file
        raise TerokError(f"{source} is not a valid {capture.format} file.") from None
    values = {name: _find(tree, path, capture.format) for name, path in capture.fields.items()}
    secret = values.get("access_token") if capture.auth == "oauth" else values.get("secret")
    if not isinstance(secret, str) or not secret:
        raise TerokError(f"{source} contains no credential for {capture.provider}.", code=Exit.NOT_FOUND)
    login = _login(values) if capture.auth == "oauth" else {}
    made = Credential(capture.auth, check_secret(secret), **login)
    variables = {name: _find(tree, path, capture.format) for name, path in capture.variables.items()}
    meta: dict[str, object] = {"source": source}
    kept = {name: value for name, value in variables.items() if isinstance(value, str) and value}
    if kept:
        meta["variables"] = kept
    return made, meta


def _login(values: Mapping[str, Any]) -> dict[str, Any]:
    """The optional parts of an OAuth login."""
    expires: float | None = None
    if isinstance(values.get("expires_at_ms"), int | float):
        expires = float(values["expires_at_ms"]) / 1000
    elif isinstance(values.get("expires_at"), int | float):
        expires = float(values["expires_at"])
    else:
        expires = jwt_expiry(str(values["access_token"]))
    scopes = values.get("scopes")
    if isinstance(scopes, str):
        scopes = scopes.split()
    refresh, identity = values.get("refresh_token"), values.get("id_token")
    return {
        "refresh_token": check_secret(refresh) if isinstance(refresh, str) and refresh else None,
        "expires_at": expires,
        "scopes": tuple(str(scope) for scope in scopes or ()),
        "id_token": check_secret(identity) if isinstance(identity, str) and identity else None,
    }


def _find(tree: object, path: str, kind: str) -> object:
    """The value at a path; None when it is not there."""
    for key in [path] if kind in ("env", "text") else path.split("/"):
        if not isinstance(tree, dict):
            return None
        tree = next(iter(tree.values()), None) if key == "*" else tree.get(key)
    return tree


def _env(text: str) -> dict[str, str]:
    """Lines of KEY=VALUE; `export`, comments and quotes as in a shell's file."""
    values = {}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and not name.startswith(("#", ";")):
            values[name.strip()] = value.strip().strip("\"'")
    return values


def _ini(text: str) -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    return {name: dict(parser[name]) for name in parser.sections()}


def _netrc(text: str) -> dict[str, dict[str, str]]:
    """`machine HOST login NAME password WORD`, the words that such files of tokens have (netrc(5))."""
    words, machines, host = text.split(), dict[str, dict[str, str]](), ""
    for key, value in zip(words, words[1:], strict=False):
        if key == "machine":
            host = value
            machines[host] = {}
        elif host and key in ("login", "password"):
            machines[host].setdefault(key, value)
    return machines


def _yaml(text: str) -> object:
    import yaml

    return yaml.safe_load(text)


_PARSERS: dict[str, Any] = {
    "json": json.loads,
    "yaml": _yaml,
    "env": _env,
    "ini": _ini,
    "netrc": _netrc,
    "text": lambda text: {"*": text.strip()},
}
"""Format -> its parser."""
