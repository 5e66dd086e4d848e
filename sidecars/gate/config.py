"""gate.json: what the operator decided about one scope's gate. Written by `terok gate`, read by everyone."""

from __future__ import annotations

import json
import os
from typing import NamedTuple

from ...supervisor.ground import durable, paste
from ...supervisor.ground.errors import Exit, TerokError
from ..kit.proxy.egress import NO_PROXY, Egress, from_dict
from .forge.address import spellings
from .policy import Policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ...supervisor.ground.layout import GateHome, Layout

MODES = ("online", "gatekeeping")
DIRECT = ("refuse", "allow")
KEEP_DAYS = 30
"""How long an overwritten or deleted tip can be restored."""


class Limits(NamedTuple):
    """What one container may cost.

    connections: open at a time; further ones wait.
    commands: refs in one push.
    pack_bytes: of one push's pack as it is sent.
    mirror_bytes: of all objects in the scope's mirror: when it has more, nothing is taken any more.
    pack_objects: objects in one push's pack.
    file_bytes: of the largest file that git may write.
    memory_bytes: address space of each git process that reads the container's bytes.
    cpu_seconds: of each such process.
    push_seconds, fetch_seconds: one request, whole.
    idle_seconds: without one byte in either direction.
    head_seconds: from a connection's first byte to the end of the request's head.
    """

    connections: int = 24
    commands: int = 256
    pack_bytes: int = 4 << 30
    mirror_bytes: int = 64 << 30
    pack_objects: int = 5_000_000
    file_bytes: int = 8 << 30
    memory_bytes: int = 4 << 30
    cpu_seconds: int = 1200
    push_seconds: int = 3600
    fetch_seconds: int = 3600
    idle_seconds: int = 300
    head_seconds: int = 20


class GateConfig(NamedTuple):
    """One scope's gate.

    url: upstream, without a password.
    mode: one of `MODES`.
    credential: name of the scope's credential in the vault; "" for none (a public repository, or SSH).
    ssh_key: name of the key in the vault; "" takes the scope's only one.
    username: user name that goes with the credential.
    ca_file: certificates to trust instead of the system's; "" for the system's.
    default_branch: full ref name.
    object_format: sha1 or sha256, as upstream has it.
    direct: one of `DIRECT`: whether the vault may change branches and tags of this repository beside the gate.
    refresh_seconds: a fetch asks upstream first when the mirror is older; 0: only `terok gate sync` does.
    """

    url: str
    mode: str = "gatekeeping"
    credential: str = ""
    ssh_key: str = ""
    username: str = ""
    ca_file: str = ""
    default_branch: str = "refs/heads/main"
    object_format: str = "sha1"
    refresh_seconds: int = 60
    direct: str = "refuse"
    policy: Policy = Policy()
    limits: Limits = Limits()

    @property
    def oid_length(self) -> int:
        """Hexadecimal digits of an object's name."""
        return 64 if self.object_format == "sha256" else 40

    def changed_limits(self) -> dict[str, int]:
        """The limits that differ from the defaults."""
        default = Limits()._asdict()
        return {name: value for name, value in self.limits._asdict().items() if value != default[name]}

    def to_dict(self) -> dict[str, object]:
        """The content of gate.json."""
        return {"schema": 1, **self._asdict(), "policy": self.policy.to_dict(), "limits": self.changed_limits()}

    def replace(self, **changes: Any) -> GateConfig:
        """The same with some fields changed."""
        return self._replace(**changes)


def load(home: GateHome) -> GateConfig:
    """Read a scope's gate.json.

    Raises:
        TerokError: there is no gate for the scope (NOT_FOUND), or the file is wrong.
    """
    try:
        with open(home.config, "rb") as file:
            data = json.load(file)
    except FileNotFoundError:
        raise TerokError(
            f"The scope {home.scope} has no gate.",
            fix=f"terok gate add {paste.quoted(home.scope)} URL",
            code=Exit.NOT_FOUND,
        ) from None
    except (OSError, ValueError) as error:
        raise TerokError(f"Could not read {home.config}: {error}.", code=Exit.USAGE) from error
    try:
        return parse(data)
    except ValueError as error:
        raise TerokError(f"{home.config} is wrong: {error}.", code=Exit.USAGE) from error


def parse(document: object) -> GateConfig:
    """Check a decoded gate.json.

    Raises:
        ValueError: naming what is wrong.
    """
    if not isinstance(document, dict):
        raise ValueError("it is not an object")
    data = dict(document)
    if data.pop("schema", None) != 1:
        raise ValueError("schema is not 1")
    policy, limits = data.pop("policy", {}), data.pop("limits", {})
    if not isinstance(policy, dict) or not isinstance(limits, dict):
        raise ValueError("policy or limits is not an object")
    example = GateConfig(url="")
    for name, value in data.items():
        if name not in GateConfig._fields or type(value) is not type(getattr(example, name)):
            raise ValueError(f"{name} is unknown or has the wrong type")
    for name, value in limits.items():
        if name not in Limits._fields or type(value) is not int or value < 1:
            raise ValueError(f"limits.{name} is unknown or not a positive number")
    if data.get("mode", MODES[0]) not in MODES:
        raise ValueError(f"mode is neither {' nor '.join(MODES)}")
    if data.get("direct", DIRECT[0]) not in DIRECT:
        raise ValueError(f"direct is neither {' nor '.join(DIRECT)}")
    if "url" not in data:
        raise ValueError("url is missing")
    return GateConfig(**data, policy=Policy.from_dict(policy), limits=Limits(**limits))


def save(home: GateHome, config: GateConfig) -> None:
    """Write gate.json, whole or not at all."""
    write_json(home.config, config.to_dict())


def write_json(path: str, data: object) -> None:
    """Replace a file by JSON text, 0600, whole or not at all."""
    durable.replace(path, json.dumps(data, indent=1).encode())


class Settings(NamedTuple):
    """The gate's part of a sidecar JSON.

    root: the directory of all mirrors.
    store: path of the vault's database.
    key_files: where the vault's key may be.
    egress: how upstream is reached.
    """

    root: str
    store: str
    key_files: tuple[str, ...]
    egress: Egress


def read_settings(document: Mapping[str, object]) -> Settings:
    """Check a settings object.

    Raises:
        TerokError: a field is missing, unknown or of the wrong type.
    """
    root, store, files, way = (document.get(name) for name in Settings._fields)
    try:
        egress = from_dict(way)
    except ValueError:
        egress = None
    if (
        egress is not None
        and document.keys() | {"egress"} == set(Settings._fields)
        and isinstance(root, str)
        and isinstance(store, str)
        and isinstance(files, list)
        and all(isinstance(path, str) for path in files)
    ):
        return Settings(root, store, tuple(files), egress)
    raise TerokError("The gate's settings in the sidecar JSON are not understood.", fix="run `terok prepare` again")


def settings_for(layout: Layout, scope: str, egress: Egress = NO_PROXY) -> dict[str, object]:
    """The gate's `settings` in a sidecar JSON; the scope's gate may also be added later.

    Raises:
        TerokError: the scope's name is not usable.
    """
    from ..store.keys import key_files

    layout.gate_home(scope)
    return {
        "root": layout.gate,
        "store": layout.vault_db,
        "key_files": key_files(layout),
        "egress": egress.to_dict(),
    }


def git_config(
    layout: Layout, scope: str, token: str, base: str = "http://127.0.0.1:9418", *, ssh: bool = True
) -> list[tuple[str, str]]:
    """Git configuration with which plain `git` in a container uses the gate: for GIT_CONFIG_COUNT (git-config(1)).

    The token goes with every request to the gate, and `git clone` of the upstream's own URL goes to the gate.

    Args:
        token: the container's phantom token for the provider `gate`.
        base: where the container reaches the gate.
        ssh: `git@forge:me/project` goes to the gate too.

    Raises:
        TerokError: gate.json is wrong.
    """
    pairs = [(f"http.{base}/.extraHeader", f"Authorization: Bearer {token}")]
    home = layout.gate_home(scope)
    if os.path.exists(home.config):
        written = spellings(load(home).url, ssh=ssh)
        pairs += [(f"url.{base}/{scope}.git.insteadOf", spelling) for spelling in written]
    return pairs
