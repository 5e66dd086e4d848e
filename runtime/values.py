"""The names that complete an argument: one function for each kind that `kit/verb.py`'s `values` can name.

Shells read what is printed here: bash expands the words that it is given, `$(...)` included, and some of them come
from containers (the refs that they push). So only names of harmless letters are offered.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence

from ..supervisor.ground.errors import TerokError
from .kit.env import Env

HARMLESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/@:+-]*")


def offered(kind: str, env: Env, words: Sequence[str]) -> list[str]:
    """The names of a kind, sorted; none when they cannot be read, because a completion does not complain.

    Args:
        kind: one of `KINDS`.
        env: where they are.
        words: the words on the command line so far.
    """
    try:
        names = set(KINDS[kind](env, words))
    except (TerokError, OSError):
        return []
    return sorted(name for name in names if HARMLESS.fullmatch(name))


def _containers(env: Env, words: Sequence[str]) -> Iterable[str]:
    from .kit.alive import containers

    return containers(env.layout)


def _scopes(env: Env, words: Sequence[str]) -> Iterable[str]:
    from .launch.services import open_store

    names = set(_gates(env, words))
    store = open_store(env.layout)
    if store is not None:
        with store:
            for entry in store.describe():
                names |= {entry.scope, *entry.meta.get("scopes", [])}
    return names


def _ssh_keys(env: Env, words: Sequence[str]) -> Iterable[str]:
    from ..sidecars.ssh.settings import KIND
    from .launch.services import open_store

    store = open_store(env.layout)
    if store is None:
        return []
    with store:
        return [entry.name for entry in store.describe(KIND)]


def _profiles(env: Env, words: Sequence[str]) -> Iterable[str]:
    from ..sidecars.shield.profiles import available

    return available(env.layout.profiles)


def _providers(env: Env, words: Sequence[str]) -> Iterable[str]:
    from ..sidecars.roster import files

    return files.load(env.layout)[0].providers


def _agents(env: Env, words: Sequence[str]) -> Iterable[str]:
    from ..sidecars.roster import files

    return files.load(env.layout)[0].agents


def _recipes(env: Env, words: Sequence[str]) -> Iterable[str]:
    from .agent.recipes import RECIPES

    return RECIPES


def _gates(env: Env, words: Sequence[str]) -> Iterable[str]:
    return os.listdir(env.layout.gate) if os.path.isdir(env.layout.gate) else []


def _gate_named(env: Env, words: Sequence[str]) -> str | None:
    gates = set(_gates(env, words))
    return next((word for word in words if word in gates), None)


def _proposals(env: Env, words: Sequence[str]) -> Iterable[str]:
    from ..sidecars.gate.state import State

    scope = _gate_named(env, words)
    return [] if scope is None else map(str, State.peek(env.layout.gate_home(scope)).proposals)


def _tips(env: Env, words: Sequence[str]) -> Iterable[str]:
    from ..sidecars.gate import refs

    scope = _gate_named(env, words)
    lost = refs.kept(refs.read(env.layout.gate_home(scope))) if scope is not None else []
    return [name for tip in lost for name in (tip.identity, tip.ref.removeprefix("refs/heads/"))]


def _config_keys(env: Env, words: Sequence[str]) -> Iterable[str]:
    from .kit.config import keys

    return keys()


def _networks(env: Env, words: Sequence[str]) -> Iterable[str]:
    from .kit.config import NETWORK_MODES

    return NETWORK_MODES


def _ssh_types(env: Env, words: Sequence[str]) -> Iterable[str]:
    from .ssh.formats import GENERATED

    return GENERATED


def _signatures(env: Env, words: Sequence[str]) -> Iterable[str]:
    from .ssh.questions import waiting

    return [question.id for question in waiting(env.layout)]


def _waiting(env: Env, words: Sequence[str]) -> Iterable[str]:
    from .queue.items import waiting

    return [item.id for item in waiting(env.layout)[0]]


KINDS: dict[str, Callable[[Env, Sequence[str]], Iterable[str]]] = {
    "agents": _agents,
    "config-keys": _config_keys,
    "containers": _containers,
    "gates": _gates,
    "networks": _networks,
    "profiles": _profiles,
    "proposals": _proposals,
    "providers": _providers,
    "recipes": _recipes,
    "scopes": _scopes,
    "signatures": _signatures,
    "sources": lambda env, words: ("shield", "vault", "ssh", "gate", "mcp", "hook"),
    "ssh-keys": _ssh_keys,
    "ssh-types": _ssh_types,
    "tips": _tips,
    "waiting": _waiting,
}
