"""Runs a verb of the shield later: `up` after a bypass, `forget` after an allowance for a time.

The kernel ends a bypass by itself, at the second. `up` only tidies up after it, so that learned names count again and
names that are not allowed stop resolving; if this is killed, `terok shield status` says so, and `up` does the same.
"""

from __future__ import annotations

import os
import sys

from ..supervisor import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_KEPT = ("HOME", "XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME")
_PROGRAM = """
import sys, time
time.sleep(float(sys.argv[1]))
from terok_host.runtime.cli import run
sys.exit(run(["shield", *sys.argv[2:]]))
"""


def later(seconds: float, words: Sequence[str], environ: Mapping[str, str]) -> None:
    """Start a process that runs `terok shield WORDS` in `seconds`, and do not wait for it.

    Args:
        seconds: how long from now.
        words: a verb and its arguments.
        environ: the operator's environment; what decides about directories is handed on.
    """
    environment = {**process.CLEAN_ENV, **{key: environ[key] for key in _KEPT if key in environ}}
    environment["PYTHONPATH"] = os.pathsep.join(each for each in sys.path if each)
    process.spawn([sys.executable, "-c", _PROGRAM, str(seconds), *words], env=environment, new_session=True)
