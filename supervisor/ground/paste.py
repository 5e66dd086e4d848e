"""The commands that terok prints for people to paste into a shell.

What a container chose (a DNS name, a login name, a ref) may stand in one, so every word is quoted, a word that could
pass for an option follows its own option with `=`, and what a terminal would not show as it is gives no command.
"""

from __future__ import annotations

_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./:,@%+=-")
WORD_MAX = 256
"""Longer words give no command: people do not read them."""


def quoted(word: str) -> str:
    """One word for a POSIX shell."""
    return word if word and _PLAIN.issuperset(word) else "'" + word.replace("'", "'\"'\"'") + "'"


def command(*words: str, **options: str) -> str:
    """A command line; empty when a word cannot be shown or typed.

    Args:
        words: program, verb and arguments. Only the caller's own words may begin with a dash.
        options: `user="me"` becomes `--user=me`, whatever the value begins with.
    """
    everything = [*words, *(f"--{name}={value}" for name, value in options.items())]
    if not all(word and word.isascii() and word.isprintable() and len(word) <= WORD_MAX for word in everything):
        return ""
    return " ".join(map(quoted, everything))
