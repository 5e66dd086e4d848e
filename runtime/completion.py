"""`terok completion`: prints the completion scripts and man pages that the wheel installs, and the names that complete
an argument.
"""

from __future__ import annotations

import argparse
import os
import site
import sys

from ..supervisor.ground.errors import Exit, TerokError
from .host.release import version
from .kit.env import Env
from .kit.verb import argument, verb
from .values import KINDS, offered

SCRIPTS = {
    "bash": "share/bash-completion/completions/terok",
    "zsh": "share/zsh/site-functions/_terok",
    "fish": "share/fish/vendor_completions.d/terok.fish",
}
"""Where the wheel installs the script of each shell, below its prefix."""


@verb(
    argument("what", choices=(*SCRIPTS, "man", "values"), help="a shell; man: the man pages; values: see below"),
    argument("words", nargs="*", metavar="WORD", help="for values: a kind of names, then the words of a command line"),
    argument("--directory", metavar="DIR", help="for man: write all pages there", values="directories"),
    examples=(
        "source <(terok completion bash)",
        "terok completion zsh >~/.zfunc/_terok",
        "terok completion fish >~/.config/fish/completions/terok.fish",
        "terok completion values scopes",
    ),
)
def run(args: argparse.Namespace, env: Env) -> int:
    """Print the completion script of a shell, or write the man pages.

    An installed terok brings both: man pages in PREFIX/share/man, scripts where bash, zsh and fish find them when
    PREFIX is /usr, /usr/local or ~/.local. `terok completion values KIND` prints the names that a script offers.
    """
    if args.what == "values":
        return _values(args.words, env)
    if args.words:
        raise TerokError(f"Unexpected argument {args.words[0][:60]!r}.", code=Exit.USAGE)
    if args.what == "man":
        return _man(args.directory, env)
    text = installed(SCRIPTS[args.what])
    if text is None:
        from . import pages

        text = pages.script(args.what, "terok")
    env.out.emit(text, text)
    return Exit.OK


def _values(words: list[str], env: Env) -> int:
    if not words or words[0] not in KINDS:
        raise TerokError("Specify a kind of names.", fix=f"one of {', '.join(KINDS)}", code=Exit.USAGE)
    names = offered(words[0], env, words[1:])
    env.out.emit(names, "\n".join(names))
    return Exit.OK


def installed(path: str) -> str | None:
    """The text of a file that the wheel installed, or a package that compresses its pages; None in a source tree."""
    for prefix in (sys.prefix, site.getuserbase()):
        whole = os.path.join(prefix, path)
        try:
            with open(whole, encoding="utf-8") as file:
                return file.read()
        except OSError:
            pass
        if os.path.exists(whole + ".gz"):
            import gzip

            with gzip.open(whole + ".gz", "rt", encoding="utf-8") as packed:
                return packed.read()
    return None


def _man(directory: str | None, env: Env) -> int:
    from . import pages

    if directory is None:
        text = installed("share/man/man1/terok.1") or pages.manual(version())["terok.1"]
        env.out.emit(text, text)
        return Exit.OK
    manual = pages.manual(version())
    pages.write(directory, manual)
    env.out.emit(sorted(manual), f"Wrote {len(manual)} pages into {directory}")
    return Exit.OK
