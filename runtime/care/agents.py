"""`terok agents`: the agents of the roster, and the scopes that can use each."""

from __future__ import annotations

import argparse

from ...sidecars.roster import agents as needs
from ...sidecars.roster import files
from ...supervisor.ground.errors import Exit
from ..kit.env import Env
from ..kit.table import table
from ..kit.verb import scope_option, verb
from ..launch import services


@verb(scope_option("only the agents that this scope can use"), examples=("terok agents --scope work",))
def run(args: argparse.Namespace, env: Env) -> int:
    """List the agents that containers can be prepared for, with the scopes that hold a credential for each.

    To add an agent, put one YAML file into the roster.d directory beside config.yml.
    """
    catalogue, warning = files.load(env.layout)
    if warning:
        env.note(warning)
    rows = []
    held = _held(env)
    for name, agent in catalogue.agents.items():
        scopes = sorted(scope for scope, providers in held.items() if needs.choose(agent, providers))
        if args.scope is None or args.scope in scopes:
            rows.append({"agent": name, "title": agent.title, "providers": list(agent.providers), "scopes": scopes})
    lines = [("AGENT", "WHAT", "PROVIDERS", "SCOPES")]
    lines += [
        (str(row["agent"]), str(row["title"]), ", ".join(row["providers"]), ", ".join(row["scopes"]) or "-")
        for row in rows
    ]
    env.out.emit(rows, table(lines, env.out))
    return Exit.OK


def _held(env: Env) -> dict[str, dict[str, dict[str, object]]]:
    """Scope -> provider -> meta of every credential."""
    store = services.open_store(env.layout)
    if store is None:
        return {}
    with store:
        entries = store.describe("credential")
    return {scope: needs.credentials(entries, scope) for scope in dict.fromkeys(entry.scope for entry in entries)}
