"""The project file that `terok init` writes: what the project's files say about its languages."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fnmatch import fnmatch

from .file import keys

LANGUAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "JavaScript": ("dev-node", ("package.json", "deno.json", "bun.lock")),
    "Python": ("dev-python", ("pyproject.toml", "setup.py", "setup.cfg", "requirements*.txt", "Pipfile", "uv.lock")),
    "Rust": ("", ("Cargo.toml",)),
    "Go": ("", ("go.mod",)),
    "Java": ("", ("pom.xml", "build.gradle", "build.gradle.kts")),
    "Ruby": ("", ("Gemfile",)),
    "PHP": ("", ("composer.json",)),
    ".NET": ("", ("*.csproj", "*.sln")),
    "CUDA": ("nvidia-hpc", ("*.cu",)),
}
"""For each language: the shield profile that it needs beside the default ones, and the files that show it."""


def languages(names: Iterable[str]) -> list[str]:
    """The languages that files with these names show."""
    known = list(names)
    return [
        language
        for language, (_, patterns) in LANGUAGES.items()
        if any(fnmatch(name, pattern) for name in known for pattern in patterns)
    ]


def profiles(spoken: Iterable[str], default: Iterable[str]) -> list[str]:
    """The default profiles and those that the languages need."""
    return list(dict.fromkeys([*default, *(LANGUAGES[name][0] for name in spoken if LANGUAGES[name][0])]))


def text(agent: str, spoken: list[str], default: tuple[str, ...], schema: str) -> str:
    """A whole project file; every key that is not set stands in a comment.

    Args:
        agent: the agent that `terok start` starts.
        spoken: the project's languages.
        default: the profiles of the configuration.
        schema: where the JSON Schema is, as a URI.
    """
    wanted = profiles(spoken, default)
    lines = [
        f"# yaml-language-server: $schema={schema}",
        f"# Languages: {', '.join(spoken)}." if spoken else "# What `terok start` does in this directory.",
        "# What goes beyond the configuration of the person who starts it counts after `terok trust`.",
    ]
    values = {"agent": agent, "profiles": f"[{', '.join(wanted)}]" if set(wanted) - set(default) else ""}
    for name, (kind, doc) in keys().items():
        lines += ["", f"# {doc} ({kind.expected})"]
        lines.append(f"{name}: {values[name]}" if values.get(name) else f"# {name}:")
    return "\n".join(lines) + "\n"


def names_in(directory: str) -> list[str]:
    """The names of a directory's entries."""
    return sorted(os.listdir(directory))
