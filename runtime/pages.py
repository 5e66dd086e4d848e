"""Completion scripts and man pages, made from the table of verbs by shtab and argparse-manpage when the wheel is built.

`setup.py` calls `install_tree`; an installed terok only prints the files.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator

from ..supervisor.ground import paste
from ..supervisor.ground.errors import TerokError
from . import usage
from .kit import files
from .kit.verb import Command
from .parser import JSON, add, build
from .project import schema
from .verbs import BY_PATH, SHIELD_ALSO, Verb, below, roots

PROGRAMS = ("terok", "terok-shield", "terok-sandbox", "terok-executor")
FILES = (
    ("$XDG_CONFIG_HOME/terok/config.yml", "the configuration; see `terok config show --defaults`"),
    ("$XDG_DATA_HOME/terok/", "the vault, the mirrors, and the state of each container"),
    ("$XDG_RUNTIME_DIR/terok/", "sockets of containers, and the key of an unlocked vault"),
)


def tree(prog: str) -> argparse.ArgumentParser:
    """The parser of a whole program, every verb included."""
    parser = argparse.ArgumentParser(prog=prog, description=usage.DESCRIPTION)
    parser.add_argument("--version", action="store_true", help="print the version")
    _grow(parser, [(name, BY_PATH[path]) for name, path in roots(prog).items()])
    return parser


def _grow(parser: argparse.ArgumentParser, rows: list[tuple[str, Verb]]) -> None:
    verbs = parser.add_subparsers(metavar="VERB")
    for name, row in rows:
        child = verbs.add_parser(name, help=row.line, description=row.line)
        if row.target:
            add(child, [*row.load().arguments, JSON])
        else:
            _grow(child, [(inner.name, inner) for inner in below(row.path)])


# -- completion --


def script(shell: str, prog: str) -> str:
    """The completion script of a shell for a program."""
    try:
        import shtab
    except ImportError as error:
        raise TerokError("The completion scripts were not installed.", fix="pip install shtab") from error
    parser = tree(prog)
    kinds = set()
    for action in _actions(parser):
        kind = getattr(action, "values", "")
        if kind in ("files", "directories"):
            action.complete = shtab.FILE if kind == "files" else shtab.DIRECTORY  # type: ignore[attr-defined]  # shtab's
        elif kind:
            kinds.add(kind)
            action.complete = _names(kind)  # type: ignore[attr-defined]  # shtab reads it
    define = {"bash": _bash, "zsh": _zsh}.get(shell)
    preamble = "".join(map(define, sorted(kinds))) if define else ""
    text = shtab.complete(parser, shell, preamble=preamble)
    return text if text.endswith("\n") else text + "\n"


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from _actions(child)


def _function(kind: str) -> str:
    return "_terok_names_" + kind.replace("-", "_")


def _names(kind: str) -> dict[str, str]:
    return {
        "bash": _function(kind),
        "zsh": _function(kind),
        "fish": f"(terok completion values {paste.quoted(kind)} -- (commandline -opc) 2>/dev/null)",
    }


def _bash(kind: str) -> str:
    # the names are of harmless letters (values.py): compgen -W would expand others
    return f"""
{_function(kind)}() {{
  compgen -W "$(terok completion values {paste.quoted(kind)} -- "${{COMP_WORDS[@]}}" 2>/dev/null)" -- "$1"
}}
"""


def _zsh(kind: str) -> str:
    return f"""
{_function(kind)}() {{
  local -a names=(${{(f)"$(terok completion values {paste.quoted(kind)} -- $words 2>/dev/null)"}})
  compadd -a names
}}
"""


# -- man pages --


def manual(release: str) -> dict[str, str]:
    """Every man page of a release by its file name: the programs', and one for each verb and sub-verb."""
    pages = {"terok.1": _program("terok", release), "terok-shield.1": _program("terok-shield", release)}
    pages |= {f"{name}.1": ".so man1/terok.1\n" for name in ("terok-sandbox", "terok-executor")}
    for row in BY_PATH.values():
        if row.path != "shield":  # its page is that of the program terok-shield
            pages[f"{_title(row.path)}.1"] = _leaf(row, release) if row.target else _group(row, release)
    return pages


def _title(path: str) -> str:
    return "-".join(("terok", *path.split()))


def _program(prog: str, release: str) -> str:
    parser = argparse.ArgumentParser(prog=prog, usage=f"{prog} VERB ...", description=usage.DESCRIPTION)
    parser.add_argument("--version", action="store_true", help="print the version")
    rows = [BY_PATH[path] for path in roots(prog).values()]
    line = "run untrusted work in rootless Podman containers" if prog == "terok" else BY_PATH["shield"].line
    examples = usage.EXAMPLES if prog == "terok" else ("terok-shield run box -- alpine:latest sh",)
    return _page(
        prog, line, parser, verbs=rows, examples=examples, see=[_title(row.path) for row in rows], release=release
    )


def _group(row: Verb, release: str) -> str:
    parser = argparse.ArgumentParser(
        prog=f"terok {row.path}", usage=f"terok {row.path} VERB ...", description=row.about
    )
    rows = below(row.path)
    see = [_title(row.parent), *(_title(child.path) for child in rows)]
    return _page(_title(row.path), row.line, parser, verbs=rows, see=see, release=release)


def _leaf(row: Verb, release: str) -> str:
    command = row.load()
    parser = build(command, f"terok {row.path}")
    parser.epilog = None
    parents = [_title(row.parent)] if row.parent else []
    siblings = [_title(other.path) for other in below(row.parent) if other is not row and row.parent]
    shield = ["terok-shield"] if row.path in SHIELD_ALSO else []
    podman = ["podman-run"] if command.to_podman else []
    see = dict.fromkeys([*parents, "terok", *siblings, *shield, *podman])
    return _page(
        _title(row.path), row.line, parser, command=command, examples=command.examples, see=list(see), release=release
    )


def _page(
    title: str,
    line: str,
    parser: argparse.ArgumentParser,
    *,
    verbs: list[Verb] | None = None,
    command: Command | None = None,
    examples: tuple[str, ...] = (),
    see: list[str],
    release: str,
) -> str:
    try:
        from argparse_manpage.manpage import Manpage
    except ImportError as error:
        raise TerokError("The man pages were not installed.", fix="pip install argparse-manpage") from error
    parser._positionals.title = "arguments"
    page = Manpage(parser, {"description": line, "project_name": "terok", "version": release, "manual_title": "terok"})
    page.prog = title
    if verbs:
        page.add_section("verbs", ">", _list([(f"terok {row.path}", row.line) for row in verbs]))
    if examples:
        page.add_section("examples", ">", ".nf\n" + "\n".join(_roff(example) for example in examples) + "\n.fi")
    meanings = dict(usage.EXIT_CODES) | dict(command.exits if command else ())
    page.add_section("exit status", ">", _list([(str(code), text) for code, text in meanings.items()]))
    own = [(path, "") for path in (command.files if command else ())]
    page.add_section("files", ">", _list([*own, *FILES]))
    page.add_section("see also", ">", ", ".join(f"\\fB{_roff(name)}\\fR(1)" for name in see))
    return re.sub(r"`([^`\n]+)`", r"\\fB\1\\fR", str(page))


def _list(rows: list[tuple[str, str]]) -> str:
    return "\n".join(f".TP\n\\fB{_roff(name)}\\fR\n{_roff(text)}" for name, text in rows)


def _roff(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + escaped if escaped[:1] in (".", "'") else escaped


# -- files --


def write(directory: str, texts: dict[str, str]) -> None:
    """Write texts by their file names."""
    os.makedirs(directory, exist_ok=True)
    for name, text in texts.items():
        files.write(os.path.join(directory, name), text, mode=0o644)


def install_tree(root: str, release: str) -> dict[str, list[str]]:
    """Write everything that the wheel installs below `root`.

    Returns:
        the files that belong into each directory of the installation prefix.
    """
    parts = {
        "share/man/man1": manual(release),
        "share/terok": {schema.NAME: schema.text()},
        "share/bash-completion/completions": {prog: script("bash", prog) for prog in PROGRAMS},
        "share/zsh/site-functions": {f"_{prog}": script("zsh", prog) for prog in PROGRAMS},
        "share/fish/vendor_completions.d": {f"{prog}.fish": script("fish", prog) for prog in PROGRAMS},
    }
    for directory, texts in parts.items():
        write(os.path.join(root, directory), texts)
    return {directory: [os.path.join(root, directory, name) for name in texts] for directory, texts in parts.items()}
