"""Mints a container's phantom tokens and remembers them, so that a second prepare gives the same ones.

The store keeps only their hashes. The tokens themselves stand in the bundle's `env` and `tokens.json` (0600), because
a container's environment can't change: a repeated prepare must not invent others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ...sidecars.store import tokens as shapes
from ...sidecars.store.store import Store
from ...supervisor.ground.layout import Bundle
from ..kit import files

GATE = "gate"
"""The provider name of the token that opens the git gate."""


def ensure(
    store: Store, bundle: Bundle, *, scope: str, providers: Iterable[str], mint: Callable[[str], str]
) -> dict[str, str]:
    """The container's token for each provider: the one it has, or a new one.

    Args:
        store: where hashes go; needs no key.
        bundle: the container's bundle.
        scope: what the tokens are bound to. A container that changes its scope gets new tokens; the old ones die.
        providers: provider names, `GATE` among them.
        mint: makes a token in the shape that a provider's clients accept.
    """
    kept = files.read_json(bundle.tokens)
    old: dict[str, str] = {}
    if isinstance(kept, dict) and kept.get("scope") == scope and isinstance(kept.get("tokens"), dict):
        old = {name: token for name, token in kept["tokens"].items() if isinstance(token, str)}
    known = {info.digest for info in store.tokens(bundle.name) if info.scope == scope}
    valid = {name: token for name, token in old.items() if shapes.digest(token) in known}
    if not valid:
        store.revoke(bundle.name)
    chosen: dict[str, str] = {}
    for name in dict.fromkeys(providers):
        token = valid.get(name) or mint(name)
        if name not in valid:
            store.add_token(token, container=bundle.name, scope=scope, provider=name)
        chosen[name] = token
    everything = {**valid, **chosen}
    if everything != old:
        files.write_json(bundle.tokens, {"scope": scope, "tokens": everything})
    return chosen
