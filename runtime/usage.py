"""The help of `terok` itself and of its groups, from the table of verbs; without argparse, whose import takes 25 ms."""

from __future__ import annotations

from .verbs import BY_PATH, SECTIONS, SHIELD_ALSO, Verb, below

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

DESCRIPTION = "Run untrusted work in rootless Podman containers that use your credentials without holding one."
EXIT_CODES = (
    (0, "done"),
    (1, "could not be done"),
    (2, "wrong usage or configuration"),
    (3, "no such container, scope, key or credential"),
    (4, "not allowed by a policy"),
    (5, "a step remains that you must do"),
    (6, "the vault is locked"),
)
EXAMPLES = (
    "terok setup",
    "terok run box --scope work -- --rm -it debian:13",
    "terok shield allow box example.com",
    "terok doctor",
)


def program(prog: str) -> str:
    """The help of a program without a verb: its verbs, grouped by what a person wants."""
    if prog == "terok-shield":
        lines = [BY_PATH["shield"].about, "", "Containers:"]
        lines += _rows(BY_PATH[name] for name in SHIELD_ALSO)
        lines += ["", "Firewall:", *_rows(below("shield"))]
    else:
        lines = [DESCRIPTION]
        for title, rows in SECTIONS.items():
            lines += ["", f"{title}:", *_rows(row for row in rows if not row.parent)]
        lines += ["", "Examples:", *(f"  {example.replace('terok', prog, 1)}" for example in EXAMPLES)]
    codes = "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES)
    lines += ["", f"Exit codes: {codes}."]
    return _text(prog, [*lines, f"`{prog} VERB --help` explains a verb; `{prog} --version` prints the version."])


def group(row: Verb, prog: str) -> str:
    """The help of a verb that only has verbs of its own.

    Args:
        row: the verb.
        prog: the words that lead to it, with the program's name.
    """
    lines = [row.about, "", "Verbs:", *_rows(below(row.path)), "", f"`{prog} VERB --help` explains a verb."]
    return _text(prog, lines)


def _rows(rows: Iterable[Verb]) -> list[str]:
    return [f"  {row.name:<13} {row.line}" for row in rows]


def _text(prog: str, lines: list[str]) -> str:
    wrapped = [part for line in [f"Usage: {prog} VERB ...", "", *lines] for part in (_wrap(line) or [""])]
    return "\n".join(wrapped)


def _wrap(line: str) -> list[str]:
    """At most 100 columns; what continues a list of verbs is indented below its text."""
    out: list[str] = []
    indent = " " * 16 if line.startswith("  ") else ""
    while len(line) > 100:
        at = line.rfind(" ", 0, 100)
        out.append(line[:at])
        line = indent + line[at + 1 :]
    return [*out, line] if line else out
