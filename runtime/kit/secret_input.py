"""Reading a secret: from a terminal without echo, else from standard input. Never from the command line."""

from __future__ import annotations

import sys

from ...supervisor.ground.errors import Exit, TerokError

SIZE_MAX = 1 << 20


def read(prompt: str, *, confirm: bool = False, whole: bool = False) -> str:
    """A secret of one line.

    Args:
        prompt: what to ask for, without a colon.
        confirm: on a terminal, ask twice; a second line of standard input, where there is one, must be the same.
        whole: everything on standard input is the secret, whatever its lines.

    Raises:
        TerokError: it is empty or has more lines, or the two entries differ.
    """
    if sys.stdin.isatty():
        text = _ask(prompt)
        again = _ask(f"{prompt}, once more") if confirm and text else text
    else:
        text = read_all().rstrip("\r\n")
        given = [text] if whole else [line.rstrip("\r") for line in text.split("\n")]
        text, again = given[0], given[-1]
        if len(given) > (2 if confirm else 1):
            raise TerokError(f"{prompt}: standard input has {len(given)} lines; one is expected.", code=Exit.USAGE)
    if not text:
        raise TerokError(f"{prompt}: the input is empty.", code=Exit.USAGE)
    if again != text:
        raise TerokError(f"{prompt}: the two entries differ.", code=Exit.USAGE)
    return text


def read_all() -> str:
    """Everything on standard input, at most 1 MiB.

    Raises:
        TerokError: there is more, or it is not UTF-8.
    """
    data = sys.stdin.buffer.read(SIZE_MAX + 1)
    if len(data) > SIZE_MAX:
        raise TerokError("Standard input is longer than 1 MiB.", code=Exit.USAGE)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise TerokError("Standard input is not UTF-8.", code=Exit.USAGE) from None


def lines(prompts: list[str]) -> list[str]:
    """Several secrets: asked one after the other on a terminal (the last twice), else one line of standard input each.

    Raises:
        TerokError: one is missing, or the two entries of the last differ.
    """
    if sys.stdin.isatty():
        secrets = [_ask(prompt) for prompt in prompts]
        if _ask(f"{prompts[-1]}, once more") != secrets[-1]:
            raise TerokError(f"{prompts[-1]}: the two entries differ.", code=Exit.USAGE)
    else:
        secrets = read_all().splitlines()[: len(prompts)]
    if len(secrets) < len(prompts) or not all(secrets):
        raise TerokError(f"{' and '.join(prompts)} must be given, one a line.", code=Exit.USAGE)
    return secrets


def _ask(prompt: str) -> str:
    from getpass import getpass

    try:
        return getpass(f"{prompt}: ")
    except EOFError:
        return ""
