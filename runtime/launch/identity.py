"""Who a container is to the services: its tokens, and the environment and files of the agents that use them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ...sidecars.gate import config as gate_config
from ...sidecars.roster import agents
from ...sidecars.roster import files as roster
from ...sidecars.roster.model import AgentFile, Catalog
from ...sidecars.store import keys
from ...sidecars.store import tokens as shapes
from ...sidecars.store.records import LockedError
from ...sidecars.store.store import Store
from ...supervisor.ground import paste
from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import Bundle
from ..kit.config import Config
from . import services, tokens
from .plan import WiringPlan
from .tls import wiring as tls


@dataclass
class Identity:
    """What a container gets; filled while it is worked out.

    tokens: phantom token by provider; the gate's under `tokens.GATE`.
    env: environment variables of the agents.
    files: what the agents want below the home directory, first come first served.
    names: the agents that were prepared.
    tls_hosts: the brokered hosts, each as `host:port`, whose certificates the container's authority signs.
    notes: what to tell people.
    """

    tokens: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    files: dict[str, AgentFile] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    tls_hosts: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


def make(
    plan: WiringPlan,
    wanted: tuple[str, ...] | None,
    *,
    cfg: Config,
    bundle: Bundle,
    names_lead_here: bool = False,
    gate_ssh: bool = True,
    allow_missing: bool = True,
) -> Identity:
    """Mint (or find again) the container's tokens and point its agents at the vault.

    Args:
        plan: what is active; without a scope the result is empty.
        wanted: names of agents; None: those whose credential the scope has.
        cfg: where the store and the roster are.
        bundle: where tokens are kept.
        names_lead_here: the container's network brings connections to brokered hosts to the vault.
        gate_ssh: git takes SSH URLs of the gate's repository to the gate.
        allow_missing: leave an agent without a credential out, with a note, instead of refusing.

    Raises:
        TerokError: an agent is unknown, or the roster or the store can't be read.
    """
    identity = Identity()
    if plan.scope is None or not (plan.broker or plan.gate):
        return identity
    # the services open it too, and say what is missing to their clients
    store = services.open_store(cfg.layout, create=True)
    assert store is not None
    with store:
        if plan.broker or plan.ssh:
            _say_if_locked(store, cfg, identity)
        catalogue, warning = roster.load(cfg.layout)
        if warning:
            identity.notes.append(warning)
        held = _held(store, plan, catalogue, identity)
        _mint(store, plan, catalogue, held, bundle, identity)
        terminated = tls.decide(cfg.vault, plan.scope, catalogue, held) if names_lead_here else tls.Brokered()
        if terminated.hosts and tls.ensure_authority(store, bundle, terminated.hosts, identity.notes):
            identity.tls_hosts = terminated.hosts
            identity.env.update(tls.environment())
        else:
            terminated = tls.Brokered()
            tls.drop(store, bundle)
    pairs: list[tuple[str, str]] = []
    if plan.broker:
        identity.env.update(agents.general_env(held, identity.tokens))
        holdings = Holdings(catalogue, held, terminated.providers)
        _point_agents(wanted, holdings, plan.scope, identity, pairs, allow_missing=allow_missing)
    if plan.gate:
        pairs += gate_config.git_config(cfg.layout, plan.scope, identity.tokens[tokens.GATE], ssh=gate_ssh)
    identity.env.update(agents.git_env(pairs))
    return identity


def _say_if_locked(store: Store, cfg: Config, identity: Identity) -> None:
    try:
        if store.describe():
            keys.ensure_unlocked(store, keys.key_files(cfg.layout))
    except LockedError:
        identity.notes.append("The vault is locked: credentials and keys give errors until `terok vault unlock`.")


def _held(store: Store, plan: WiringPlan, catalogue: Catalog, identity: Identity) -> dict[str, dict[str, object]]:
    """The scope's credentials, by provider, that the roster knows."""
    assert plan.scope is not None
    if not plan.broker:
        return {}
    held = agents.credentials(store.describe("credential", plan.scope), plan.scope)
    if not held:
        command = paste.command("terok", "vault", "add", plan.scope, "PROVIDER")
        identity.notes.append(f"Scope {plan.scope} has no credential: `{command}` adds one.")
    unknown = [name for name in held if catalogue.provider(name) is None]
    if unknown:
        identity.notes.append(f"The roster does not know {', '.join(unknown)}: no token was made for it.")
    return {name: meta for name, meta in held.items() if name not in unknown}


def _mint(
    store: Store,
    plan: WiringPlan,
    catalogue: Catalog,
    held: Mapping[str, dict[str, object]],
    bundle: Bundle,
    identity: Identity,
) -> None:
    assert plan.scope is not None

    def mint(provider: str) -> str:
        if provider == tokens.GATE:
            return shapes.mint()
        known = catalogue.provider(provider)
        assert known is not None  # `_held` leaves out what the roster does not know
        return agents.phantom(known, held[provider])

    providers = [*held, *([tokens.GATE] if plan.gate else [])]
    identity.tokens = tokens.ensure(store, bundle, scope=plan.scope, providers=providers, mint=mint)


class Holdings(NamedTuple):
    """What the agents of a container can use.

    Attributes:
        catalogue: the roster.
        held: provider -> meta of the scope's credentials.
        tls: the providers at whose own hosts the vault answers.
    """

    catalogue: Catalog
    held: Mapping[str, dict[str, object]]
    tls: tuple[str, ...]


def _point_agents(
    wanted: tuple[str, ...] | None,
    holdings: Holdings,
    scope: str,
    identity: Identity,
    pairs: list[tuple[str, str]],
    *,
    allow_missing: bool,
) -> None:
    catalogue, held = holdings.catalogue, holdings.held
    for name in agents.available(catalogue, held) if wanted is None else wanted:
        check_agent(name, catalogue)
        need = agents.wanted(catalogue, name, tokens=identity.tokens, held=held, tls=holdings.tls)
        if need is None:
            missing = f"Agent {name} has no credential in scope {scope}"
            providers = catalogue.agents[name].providers
            fix = " or ".join(paste.command("terok", "vault", "add", scope, provider) for provider in providers)
            if not allow_missing:
                raise TerokError(f"{missing}.", fix=f"{fix}; or --allow-missing", code=Exit.NOT_FOUND)
            identity.notes.append(f"{missing}: `{fix}`.")
            continue
        identity.names.append(name)
        for key, value in need.env.items():
            identity.env.setdefault(key, value)
        for file in need.files:
            identity.files.setdefault(file.path, file)
        pairs += [pair for pair in need.git if pair not in pairs]


def check_agent(name: str, catalogue: Catalog) -> None:
    """Raise TerokError (USAGE), with the nearest known name, when the roster has no such agent."""
    if name not in catalogue.agents:
        from difflib import get_close_matches

        close = get_close_matches(name, catalogue.agents, n=1)
        raise TerokError(
            f"The roster has no agent {name[:60]!r}.",
            fix=f"write {close[0]}" if close else "terok agents lists them",
            code=Exit.USAGE,
        )
