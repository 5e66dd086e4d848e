"""What the caller of a launch wants, before anything is decided."""

from __future__ import annotations

from dataclasses import dataclass

from ...sidecars.airlock.published.settings import Published
from ..kit.config import Config
from .plan import WiringPlan


@dataclass(frozen=True)
class Request:
    """One prepare or run.

    container: its name.
    shield, gate, broker, ssh: which subsystems are wanted.
    scope: whose credentials, or None.
    profiles: shield profiles; None: those of the configuration.
    network: a mode of `config.NETWORK_MODES`; None: that of the configuration.
    agents: agents to prepare; None: those of the configuration.
    restricted: see `docs/restricted.md`.
    udp_ports: ports of the container that podman publishes for UDP.
    published: TCP ports that terok publishes, in the airlock; host ports of 0 are chosen.
    allow_missing: prepare although the scope, or the credential of an agent that is wanted, does not exist.
    own_seccomp: the operator brings a seccomp profile.
    allow: targets that may be reached besides the profiles'.
    mcp: the container may use the scope's MCP servers; they themselves may not.
    gate_ssh: git takes the forge's SSH URLs of the gate's repository to the gate.
    workspace, project_file: as in `plan.Meta`.
    once: the bundle is of no use after the container: it is deleted when Podman removes it.
    """

    container: str
    shield: bool = True
    gate: bool = True
    broker: bool = True
    ssh: bool = True
    scope: str | None = None
    profiles: tuple[str, ...] | None = None
    network: str | None = None
    agents: tuple[str, ...] | None = None
    restricted: bool = False
    udp_ports: tuple[int, ...] = ()
    published: tuple[Published, ...] = ()
    allow_missing: bool = False
    own_seccomp: bool = False
    once: bool = False
    mcp: bool = True
    gate_ssh: bool = True
    allow: tuple[str, ...] = ()
    workspace: str = ""
    project_file: str = ""


def decide(request: Request, cfg: Config) -> tuple[WiringPlan, list[str]]:
    """The plan for a request, and what to tell people about it; pure.

    A subsystem that serves a scope's secrets is left out when there is no scope: there is nothing that it could serve.
    """
    wanted = {
        "gate": request.gate and cfg.gate.enabled,
        "broker": request.broker and cfg.vault.enabled,
        "ssh": request.ssh and cfg.ssh.enabled,
    }
    notes: list[str] = []
    if request.scope is None:
        names = {"gate": "the git gate", "broker": "the vault", "ssh": "the SSH signer"}
        left_out = [names[name] for name, on in wanted.items() if on]
        if left_out:
            notes.append(f"No --scope: {', '.join(left_out)} will not run.")
        wanted = dict.fromkeys(wanted, False)
    plan = WiringPlan(
        scope=request.scope,
        shield=request.shield,
        gate=wanted["gate"],
        broker=wanted["broker"],
        ssh=wanted["ssh"],
    )
    return plan, notes
