"""`terok vault routes`: the YAML roster, compiled into routes.json."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...sidecars.roster import files
from ...supervisor.ground.errors import Exit
from ..kit.verb import switch, verb

if TYPE_CHECKING:
    import argparse

    from ..kit.env import Env


@verb(switch("--check", "only report whether the roster is valid"))
def run_routes(args: argparse.Namespace, env: Env) -> int:
    """Compile the roster into routes.json."""
    if args.check:
        from ...sidecars.roster.compile import compile_files

        catalogue = compile_files([source.path for source in files.sources(env.layout)])
    else:
        catalogue = files.write_routes(env.layout)
    providers, agents = catalogue.providers, catalogue.agents
    done = "The roster is right" if args.check else f"Wrote {env.layout.vault_routes}"
    text = f"{done}: {len(providers)} providers, {len(agents)} agents."
    env.out.emit({"path": env.layout.vault_routes, "providers": list(providers), "agents": list(agents)}, text)
    return Exit.OK
