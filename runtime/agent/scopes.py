"""Whether a directory may use a scope: a new scope is the directory's own, and one that exists is asked for once."""

from __future__ import annotations

import os
import sys

from ...sidecars.ssh.settings import KIND as SSH_KEY
from ...sidecars.store import credential
from ...supervisor.ground import paste
from ...supervisor.ground.errors import Exit, TerokError
from ..host import podman
from ..kit.env import Env
from ..launch import services
from ..project import connected


def home_volume(scope: str) -> str:
    """The volume that holds the scope's home directory: settings, history, caches; no credential is in it."""
    return f"terok-{scope}-home"


def holdings(env: Env, scope: str, workspace: str) -> list[str]:
    """What a scope holds that a directory would get with it, in words; empty when it does not exist yet.

    Args:
        env: the surroundings.
        scope: the scope.
        workspace: the directory, absolute and without links; that it used the scope itself is nothing.
    """
    words = []
    store = services.open_store(env.layout)
    if store is not None:
        with store:
            entries = store.describe()
        names = sorted(entry.name for entry in entries if entry.kind == credential.KIND and entry.scope == scope)
        keys = [entry.name for entry in entries if entry.kind == SSH_KEY and scope in entry.meta.get("scopes", ())]
        words += [f"the credential {name}" for name in names] + [f"the SSH key {name}" for name in keys]
    if os.path.isdir(env.layout.gate_home(scope).root):
        words.append("a git mirror")
    if scope in services.available_profiles(env.layout):  # it is applied to every container of the scope
        words.append(f"the shield profile {scope}")
    if podman.call(["volume", "exists", "--", home_volume(scope)], env.environ).code == 0:
        words.append("the settings and history of its agents")
    others = [path for path in connected.directories(env.layout, scope) if path != workspace]
    return [*words, *(f"what {paste.quoted(path)} does with it" for path in others[:3])]


def permit(env: Env, scope: str, workspace: str, agent: str, *, typed: bool) -> None:
    """Return when the directory may use the scope; ask once at a terminal when the scope exists already.

    Args:
        env: the surroundings.
        scope, workspace: as in `holdings`.
        agent: the agent, for the command that helps; empty without.
        typed: the operator named the scope on the command line.

    Raises:
        TerokError: the answer was no, or there is no terminal to ask at (REFUSED).
    """
    if typed or scope in connected.scopes(env.layout, workspace):
        return
    held = holdings(env, scope, workspace)
    if not held:
        return
    place = paste.quoted(workspace)
    words = ["terok", "start", *([agent] if agent else []), "--scope"]
    if not sys.stdin.isatty():
        raise TerokError(
            f"The scope {scope} exists already, and {place} has not used it before.",
            fix=paste.command(*words, scope),
            code=Exit.REFUSED,
        )
    env.note(f"The scope {scope} exists already. It holds {', '.join(held)}.")
    if not env.agrees(f"Use the existing scope {scope} for {place}?"):
        raise TerokError(
            f"{place} does not use the scope {scope}.",
            fix=f"for a scope of its own: {paste.command(*words, 'ANOTHER')}",
            code=Exit.REFUSED,
        )
