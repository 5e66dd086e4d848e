"""Shield profiles: text files with one target a line. `#` begins a comment. A user's file wins over a bundled one."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import check_name
from .special import check_allowed
from .targets import Target, TargetError, parse

BUNDLED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "profiles")
_SUFFIX = ".txt"
_SIZE_MAX = 4 << 20


def directories(user: str | None) -> list[str]:
    """Where profiles are looked for, in order."""
    return ([user] if user else []) + [BUNDLED]


def available(user: str | None) -> dict[str, str]:
    """Every profile by name, with the path of the file that counts."""
    paths: dict[str, str] = {}
    for directory in reversed(directories(user)):
        names = os.listdir(directory) if os.path.isdir(directory) else []
        paths.update({name[: -len(_SUFFIX)]: os.path.join(directory, name) for name in names if name.endswith(_SUFFIX)})
    return dict(sorted(paths.items()))


def load(names: Sequence[str], user: str | None) -> tuple[Target, ...]:
    """The targets of several profiles, in order, without doubles.

    Args:
        names: profile names.
        user: the operator's profile directory, or None.

    Raises:
        TerokError: a profile does not exist or has a line that is no target.
    """
    targets: dict[Target, None] = {}
    for name in names:
        check_name(name)
        candidates = [os.path.join(directory, name + _SUFFIX) for directory in directories(user)]
        path = next((candidate for candidate in candidates if os.path.isfile(candidate)), None)
        if path is None:
            raise TerokError(
                f"There is no shield profile {name!r}; there are: {', '.join(available(user))}.",
                fix=f"write {candidates[0]}" if user else "",
                code=Exit.NOT_FOUND,
            )
        targets.update(dict.fromkeys(read(path)))
    return tuple(targets)


def read(path: str) -> list[Target]:
    """The targets of one file, each checked to be allowable.

    Raises:
        TargetError: naming the file and the line.
        TerokError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_SIZE_MAX + 1)
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TerokError(f"The shield profile {path} cannot be read: {error}.", code=Exit.USAGE) from error
    if len(content) > _SIZE_MAX:
        raise TerokError(f"The shield profile {path} is larger than {_SIZE_MAX >> 20} MiB.", code=Exit.USAGE)
    return parse_lines(text, path)


def parse_lines(text: str, source: str, *, denied: bool = False) -> list[Target]:
    """The targets of a profile's text; `source` names it in complaints. `denied`: what may never be allowed may stand.

    Raises:
        TargetError: naming the source and the line.
    """
    targets = []
    for number, line in enumerate(text.splitlines(), 1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        try:
            target = parse(content)
            if not denied:
                check_allowed(target)
        except TargetError as error:
            raise TargetError(f"{source}:{number}: {error.what}", fix=error.fix) from error
        targets.append(target)
    return targets
