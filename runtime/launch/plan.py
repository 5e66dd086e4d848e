"""What one launch activates and what it is given; kept in `meta.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ...sidecars.airlock.published.settings import Published


@dataclass(frozen=True)
class WiringPlan:
    """The subsystems that one prepare or run activates. `cleanup` reverses exactly these.

    scope: the scope, or None.
    shield, gate, broker, ssh: whether the firewall, the git gate, the vault and the SSH signer are active.
    """

    scope: str | None
    shield: bool
    gate: bool
    broker: bool
    ssh: bool

    def to_dict(self) -> dict[str, object]:
        """As plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> WiringPlan:
        """From what `to_dict` returned; unknown keys are ignored, so that an older program reads a newer file.

        Raises:
            ValueError: a key is missing or has the wrong type.
        """
        values: dict[str, Any] = {field.name: data.get(field.name) for field in fields(cls)}
        if not (values["scope"] is None or isinstance(values["scope"], str)):
            raise ValueError("scope is neither a string nor null")
        for name in ("shield", "gate", "broker", "ssh"):
            if not isinstance(values[name], bool):
                raise ValueError(f"{name} is missing or not a boolean")
        return cls(**values)


META_SCHEMA = 1


@dataclass(frozen=True)
class Meta:
    """`meta.json`: what a container was prepared with, for `status`, `cleanup` and the next prepare.

    schema: META_SCHEMA.
    scope, shield, gate, broker, ssh: its `WiringPlan`.
    ports: the three ports on the host's 127.0.0.1 in tcp mode, else None.
    published: the TCP ports that terok publishes.
    workspace: the project's directory on the host, of a container of `terok start`; empty for others.
    project_file: the digest of the project file that it was made with; empty without one.
    """

    schema: int
    container: str
    scope: str | None
    shield: bool
    gate: bool
    broker: bool
    ssh: bool
    profiles: tuple[str, ...]
    network: str
    restricted: bool
    agents: tuple[str, ...]
    ports: tuple[int, ...] | None
    published: tuple[Published, ...] = ()
    workspace: str = ""
    project_file: str = ""


@dataclass(frozen=True)
class PerContainerResources:
    """What belongs to one container alone on the host.

    container_runtime_dir: absolute path of the host's directory that the container sees as /run/terok (0700).
    token_broker_port, ssh_signer_port, gate_port: ports on the host's 127.0.0.1 in tcp mode, else None.
    """

    container_runtime_dir: str
    token_broker_port: int | None
    ssh_signer_port: int | None
    gate_port: int | None
