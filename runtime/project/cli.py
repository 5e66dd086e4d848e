"""`terok init` and `terok trust`."""

from __future__ import annotations

import argparse
import os
import sys

from ...supervisor.ground.errors import Exit, TerokError
from ..kit.env import Env
from ..kit.verb import argument, one_of, switch, verb

DIRECTORY = argument(
    "directory", metavar="DIR", nargs="?", default=".", help="the project (default: here)", values="directories"
)


@verb(
    argument("agent", metavar="AGENT", nargs="?", default="", help="the agent to start here", values="recipes"),
    switch("--force", "replace a file that exists"),
    switch("--schema", "print the JSON Schema of project files, and write nothing"),
    examples=("terok init claude",),
    files=(".terok.yml",),
)
def init(args: argparse.Namespace, env: Env) -> int:
    """Write a .terok.yml for this directory.

    The languages of the project are read from its files, and suggest shield profiles. Keys that are not set stand in
    the file as comments.
    """
    from . import FILE, schema, suggest
    from .file import parse
    from .kinds import NAME

    if args.schema:
        env.out.emit(schema.document(), schema.text())
        return Exit.OK
    path = os.path.join(os.getcwd(), FILE)
    try:
        agent = str(NAME.check(args.agent)) if args.agent else ""
    except ValueError as error:
        raise TerokError(f"AGENT must be {error}.", code=Exit.USAGE) from error
    languages = suggest.languages(suggest.names_in(os.getcwd()))
    content = suggest.text(agent, languages, env.config.shield.profiles, schema.uri(env.layout))
    parse(content, path)
    try:
        # an agent may have put a link there: a file is made, never followed
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        if args.force and os.path.lexists(path):
            os.unlink(path)
        with open(os.open(path, flags, 0o644), "w", encoding="utf-8") as file:
            file.write(content)
    except FileExistsError as error:
        raise TerokError(f"{path} exists.", fix="terok init --force replaces it", code=Exit.REFUSED) from error
    except OSError as error:
        raise TerokError(f"Could not write {path}: {error.strerror}.") from error
    shown = f"Wrote {FILE}" + (f" for {', '.join(languages)}" if languages else "")
    env.out.emit({"file": path, "languages": languages}, f"{shown}. Next: terok trust, then terok start")
    return Exit.OK


@verb(
    DIRECTORY,
    one_of(
        switch("--yes", "trust it without asking"),
        switch("--show", "show it and ask nothing"),
        switch("--forget", "trust nothing in this directory any more, and let it use no scope without asking"),
    ),
    examples=("terok trust", "terok trust --show ~/src/project"),
    exits=((Exit.MANUAL, "it asks for something, is not trusted, and there was no terminal to ask at"),),
    files=("$XDG_DATA_HOME/terok/trust/",),
)
def trust(args: argparse.Namespace, env: Env) -> int:
    """Show what a project's .terok.yml asks for, and trust it.

    A project file may narrow what your configuration allows. What widens it counts only for the exact content that you
    have trusted here: the file, and the Containerfile that it names.
    """
    from ..kit.table import escaped
    from . import FILE
    from . import trust as shelf
    from .file import read

    real = os.path.realpath(args.directory)
    if args.forget:
        had = shelf.forget(env.layout, real)
        env.out.emit({"directory": real, "forgotten": had}, "Forgotten." if had else "Nothing was trusted here.")
        return Exit.OK
    file = read(real)
    if file is None:
        raise TerokError(f"There is no {FILE} in {real}.", fix="terok init", code=Exit.NOT_FOUND)
    asked = shelf.asked(file, env.config)
    lines = shelf.diff(env.layout, file)
    known = shelf.is_trusted(env.layout, file)
    text = [*lines, *([""] if lines else [])]
    if asked:
        text += ["It asks to:", *(f"  {escaped(widening.sentence)}" for widening in asked), ""]
    if args.yes and asked and not known:
        shelf.remember(env.layout, file)
        known = True
    data = {
        "directory": file.directory,
        "digest": file.digest,
        "trusted": known,
        "asks": [{"key": widening.key, "what": widening.sentence} for widening in asked],
        "diff": lines,
    }
    env.out.emit(data, "\n".join([*text, *_closing(asked=bool(asked), known=known)]))
    if known or not asked or args.show:
        return Exit.OK
    if env.out.json_output or not sys.stdin.isatty():
        env.note("Not trusted: there is no terminal to ask at. `terok trust --yes` trusts it.")
        return Exit.MANUAL
    if not env.agrees("Trust this content?"):
        env.note("Not trusted.")
        return Exit.REFUSED
    shelf.remember(env.layout, file)
    env.note("Trusted, as long as the content stays the same.")
    return Exit.OK


def _closing(*, asked: bool, known: bool) -> list[str]:
    if known:
        return ["Trusted, as long as the content stays the same."]
    return [] if asked else ["It only narrows what your configuration allows; nothing needs trust."]
