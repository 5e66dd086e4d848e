"""Makes sure that a scope has a credential for an agent: asks once at a terminal, or says what is missing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from ...sidecars.roster import agents as needs
from ...sidecars.roster import files as roster
from ...sidecars.roster.model import Agent
from ...supervisor.ground import paste
from ...supervisor.ground.errors import Exit, TerokError
from ..kit.env import Env
from ..launch import services

KEY, IMPORT, VENDOR, NONE = WAYS = ("key", "import", "vendor", "none")
"""What `--login` takes: type a key, take the vendor's own file of this host, run the vendor's login, go without."""

_LETTERS = {"k": KEY, "i": IMPORT, "v": VENDOR, "n": NONE}


def decide(env: Env, agent: str, scope: str, way: str | None) -> str:
    """What to do about the scope's credential for the agent: NONE when it has one; else the operator's choice.

    Args:
        env: the surroundings.
        agent: the agent, as in the roster.
        scope: the scope.
        way: one of `WAYS`; None: ask at a terminal.

    Raises:
        TerokError: there is no credential, and no terminal to ask at (NOT_FOUND).
    """
    known = _missing(env, agent, scope)
    if known is None:
        return NONE
    return way or _ask(env, agent, scope, known)


def _missing(env: Env, agent: str, scope: str) -> Agent | None:
    """The agent of the roster when the scope has no credential for it."""
    catalogue, warning = roster.load(env.layout)
    if warning:
        env.note(warning)
    known = catalogue.agents.get(agent)
    if known is None:
        return None
    opened = services.open_store(env.layout)
    if opened is None:
        return known
    with opened:
        held = needs.credentials(opened.describe("credential", scope), scope)
    return None if needs.choose(known, held) else known


def _ask(env: Env, agent: str, scope: str, known: Agent) -> str:
    if not sys.stdin.isatty():
        raise TerokError(
            f"The scope {scope} has no credential for {agent}.",
            fix=f"terok vault add {paste.quoted(scope)} {paste.quoted(known.providers[0])}, "
            "or --login key (read from standard input), import, none",
            code=Exit.NOT_FOUND,
        )
    home = env.environ.get("HOME", "/")
    own = next((capture.file for capture in known.capture if os.path.exists(os.path.join(home, capture.file))), None)
    env.note(
        f"The scope {scope} has no credential for {agent} yet. It stays on this host; the container never sees it."
    )
    env.note(f"  k  type a key of {' or '.join(known.providers)}")
    if own:
        env.note(
            f"  i  take over ~/{own}. If the login renews itself, the copy in your home ends with the first renewal."
        )
    if any(capture.command for capture in known.capture):
        env.note("  v  log in with the vendor's program, in a container of its own")
    env.note("  n  go on without")
    while True:
        print("Which one? [k] ", end="", file=sys.stderr, flush=True)
        answer = (sys.stdin.readline() or "n\n").strip().lower() or "k"
        if answer[0] in _LETTERS:
            return _LETTERS[answer[0]]


def store(env: Env, agent: str, scope: str, way: str, image: Callable[[], str]) -> None:
    """Do what `decide` returned: put the credential into the scope, which comes into being with its first one.

    Args:
        env, agent, scope: as in `decide`.
        way: one of `WAYS`.
        image: gives the agent's image, in which the vendor's login runs.

    Raises:
        TerokError: the key was refused, the login failed, or there is nothing to import.
    """
    if way == NONE:
        return
    from .. import parser
    from ..vault import auth

    words = [agent, "--scope", scope]
    if way == IMPORT:
        words.append("--import")
    elif way == VENDOR:
        words += ["--login", image()]
    auth.run(parser.parse(auth.run, words, "terok auth"), env)
