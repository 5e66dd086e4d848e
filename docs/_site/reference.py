"""The reference part of the site, made from the program while MkDocs builds: a page for each verb, exit codes and
files, providers and agents, the Python API. Nothing of it is written by hand, so it cannot be out of date.

MkDocs calls `on_files` (its `hooks` setting); the pages exist only in the built site.
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from terok_host.runtime import launch, parser, usage
from terok_host.runtime.pages import FILES
from terok_host.runtime.verbs import SECTIONS, Verb, below

OPTION = re.compile(r"(?<![\w`/-])(--[a-z][a-z-]*)(?![\w`])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from the program."""
    for path, text in pages().items():
        files.append(File.generated(config, f"reference/{path}", content=text))
    return files


def pages() -> dict[str, str]:
    """Every generated page by its path below `reference/`."""
    made = {"commands.md": _overview(), "codes.md": _codes(), "providers.md": _providers(), "python.md": _python()}
    for rows in SECTIONS.values():
        made |= {f"{_page(row)}.md": _verb(row) for row in rows if not row.parent}
    return made


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a `|` in a cell is escaped and a line break becomes a space."""
    lines = [[" ".join(cell.replace("|", r"\|").split()) for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in [list(head), ["---"] * len(head), *lines]) + "\n"


def _page(row: Verb) -> str:
    return "terok-" + row.path.split()[0]


# -- commands --


def _overview() -> str:
    parts = ["# Commands", usage.DESCRIPTION + " Every verb that prints has `--json`."]
    for title, rows in SECTIONS.items():
        top = [row for row in rows if not row.parent]
        parts += [f"## {title}", table(("verb", "what it does"), [(_link(row), _prose(row.line)) for row in top])]
    return "\n\n".join(parts)


def _link(row: Verb) -> str:
    return f"[`terok {row.path}`]({_page(row)}.md)"


def _verb(row: Verb, level: int = 1) -> str:
    """A verb's section; a group's holds those of its verbs."""
    parts = [f"{'#' * level} terok {row.path}", _sentence(row.line)]
    if row.target:
        return "\n\n".join([*parts, *_leaf(row)])
    rows = below(row.path)
    parts += [row.about, table(("verb", "what it does"), [(f"`{child.path}`", _prose(child.line)) for child in rows])]
    return "\n\n".join([*parts, *(_verb(child, level + 1) for child in rows)])


def _leaf(row: Verb) -> Iterator[str]:
    command = row.load()
    built = parser.build(command, f"terok {row.path}", texts=False)
    yield "```text\n" + " ".join(built.format_usage().removeprefix("usage: ").split()) + "\n```"
    yield _prose(inspect.cleandoc(command.description))
    rows = [(_spelling(action), _prose(action.help or "")) for action in built._actions if action.dest != "help"]
    yield table(("argument", "meaning"), rows)
    if command.examples:
        yield "```sh\n" + "\n".join(command.examples) + "\n```"
    if command.exits:
        yield table(("exit code", "meaning here"), [(str(code), text) for code, text in command.exits])
    if command.files:
        yield "Files: " + ", ".join(f"`{path}`" for path in command.files)


def _spelling(action: argparse.Action) -> str:
    """An argument as it is typed: `--for TIME`, `NAME...`."""
    value = action.metavar or ("" if action.nargs == 0 else action.dest.upper())
    if not isinstance(value, str):
        value = " ".join(value)
    if action.choices and not action.metavar:
        value = "|".join(map(str, action.choices))
    if action.nargs in ("*", "+"):
        value += "..."
    return f"`{' '.join([', '.join(action.option_strings), value]).strip()}`"


def _prose(text: str) -> str:
    """Help text as Markdown: options in it as code; `%%` is argparse's percent sign."""
    return OPTION.sub(r"`\1`", text.replace("%%", "%").replace("<", "&lt;"))


def _sentence(line: str) -> str:
    return _prose(line[:1].upper() + line[1:] + ".")


# -- codes, providers, the API --


def _codes() -> str:
    return "\n\n".join(
        [
            "# Exit codes and files",
            table(("exit code", "meaning"), [(str(code), meaning) for code, meaning in usage.EXIT_CODES]),
            "The same codes are used by every verb; a verb's own page says where one means something particular.",
            table(("path", "what is there"), [(f"`{path}`", meaning) for path, meaning in FILES]),
        ]
    )


def _providers() -> str:
    from terok_host.sidecars.roster.compile import compile_files
    from terok_host.sidecars.roster.files import bundled

    catalogue = compile_files(str(path) for path in sorted(Path(bundled()).glob("*.yml")))
    providers = [
        (
            f"`{name}`",
            ", ".join(sorted({f"`{upstream.url}`" for upstream in provider.upstreams})),
            ", ".join(provider.auth),
        )
        for name, provider in sorted(catalogue.providers.items())
    ]
    agents = [(f"`{name}`", agent.title, _code(agent.providers)) for name, agent in sorted(catalogue.agents.items())]
    return "\n\n".join(
        [
            "# Providers and agents",
            "What the shipped roster knows. Files in `~/.config/terok/roster.d/` add to it and change it.",
            "## Providers",
            table(("provider", "where requests go", "kinds of credential"), providers),
            "## Agents",
            table(("agent", "program", "takes a credential of"), agents),
        ]
    )


def _code(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in sorted(words))


def _python() -> str:
    parts = [
        "# Python API",
        "`terok_host.runtime.launch`: `terok run`, `prepare` and `cleanup` for programs that start containers.",
    ]
    for name in launch.__all__:
        member = getattr(launch, name)
        if callable(member):
            signature = f"{name}{inspect.signature(member)}".replace("terok_host.", "")
            parts += [f"## {name}", f"```python\n{signature}\n```", _docstring(inspect.getdoc(member) or "")]
        else:
            parts += [f"## {name}", f"```python\n{name} = {member!r}\n```"]
    return "\n\n".join(parts)


def _docstring(text: str) -> str:
    """A docstring as Markdown: `Args:`, `Returns:`, `Raises:` become lists."""
    out: list[str] = []
    for line in text.splitlines():
        if re.fullmatch(r"(Args|Returns|Raises|Attributes):", line):
            out += ["", f"**{line[:-1]}**", ""]
        elif re.match(r"    \S", line):
            out.append("- " + re.sub(r"^(\*{0,2}[\w, ]+):", r"`\1`:", line.strip()))
        elif line.startswith("     "):
            out.append("  " + line.strip())
        else:
            out.append(line)
    return "\n".join(out)
