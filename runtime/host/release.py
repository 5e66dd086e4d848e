"""Which terok this is: its version, and the commit that it was built from or runs from.

A built wheel has both in a file beside this module, so that neither git nor the distribution's metadata is needed. A
working copy is asked directly: `pyproject.toml` and a few files of `.git`. The commit is the last one; changes on top
of it do not show.
"""

from __future__ import annotations

import os

STAMP = "release"
"""The file beside this module that `setup.py` writes into a wheel and a source archive: `VERSION [COMMIT]`."""

_ROOM = os.path.dirname(os.path.realpath(__file__))
_ROOT = os.path.dirname(os.path.dirname(_ROOM))


def version(room: str = _ROOM, root: str = _ROOT) -> str:
    """The version, with the abbreviated commit where it is known: `0.1.0 (abc1234)`.

    Args:
        room: the directory that may have the stamp.
        root: the directory of the floors; in a working copy, that of `pyproject.toml` and `.git`.
    """
    number, _, built = _text(os.path.join(room, STAMP)).strip().partition(" ")
    if not number:
        number, built = _number(root), commit(root)
    return f"{number} ({built})" if built else number


def stamp(number: str, root: str = _ROOT, room: str = _ROOM) -> str:
    """What a build of this tree writes as its stamp; a source archive has no git and hands on the stamp it has."""
    built = commit(root) or _text(os.path.join(room, STAMP)).strip().partition(" ")[2]
    return f"{number} {built}".strip() + "\n"


def commit(root: str) -> str:
    """The first seven digits of the commit that is checked out in `root`; empty where that is no git repository.

    Reads the files as gitrepository-layout(5) describes them: a process would cost more than all of `--version`.
    """
    git = os.path.join(root, ".git")
    if linked := _text(git):  # a file in a worktree and a submodule
        git = os.path.join(root, linked.removeprefix("gitdir:").strip())
    head = _text(os.path.join(git, "HEAD")).strip()
    if head.startswith("ref: "):
        head = _ref(git, head.removeprefix("ref: "))
    return head[:7] if len(head) in (40, 64) and all(letter in "0123456789abcdef" for letter in head) else ""


def _ref(git: str, name: str) -> str:
    common = os.path.join(git, _text(os.path.join(git, "commondir")).strip())
    for directory in (git, common):
        if value := _text(os.path.join(directory, name)).strip():
            return value
    packed = (line.split(" ") for line in _text(os.path.join(common, "packed-refs")).splitlines())
    return next((words[0] for words in packed if words[1:] == [name]), "")


def _number(root: str) -> str:
    lines = _text(os.path.join(root, "pyproject.toml")).splitlines()
    return next((line.split('"')[1] for line in lines if line.startswith('version = "')), "0+source")


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return ""
