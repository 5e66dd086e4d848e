"""Speaks nftables' language to the kernel, for the network namespace of the calling process.

Through libnftables where it can be loaded, through the program nft otherwise: the same code behind both, but a start
of the program costs a fork and 3 ms.
"""

from __future__ import annotations

from ..ground import kernel, process
from ..ground.errors import TerokError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

TIMEOUT = 10.0
"""Seconds for the program; the library is bounded by the caller, which runs this in a child."""


class Refused(TerokError):
    """A command was refused, and nothing was changed; `complaint` is nftables' first line."""

    def __init__(self, complaint: str) -> None:
        super().__init__(f"nft says {complaint!r}.")
        self.complaint = complaint


def load(commands: bytes) -> None:
    """Carry out commands as one transaction (nft(8)).

    Raises:
        Refused: nothing was changed.
        TerokError: neither the library nor the program is there.
    """
    _run(commands, ["-f", "-"])


def listing(table: str) -> bytes:
    """A table, given by its family and name, as JSON (libnftables-json(5)).

    Raises:
        Refused: there is none.
        TerokError: neither the library nor the program is there.
    """
    return _run(f"list table {table}\n".encode(), ["-j", "list", "table", *table.split()], json=True)


def _run(commands: bytes, arguments: Sequence[str], *, json: bool = False) -> bytes:
    """Carry out commands; `arguments` are what the program takes for the same."""
    try:
        library = kernel.Nftables()
    except OSError:
        return _program(arguments, commands)
    worked, output, complaint = library.run(commands, json=json)
    if not worked:
        lines = complaint.decode(errors="replace").strip().splitlines()
        raise Refused(lines[0] if lines else "nothing")
    return output


def _program(arguments: Sequence[str], commands: bytes) -> bytes:
    result = process.run(["nft", *arguments], stdin=commands, timeout=TIMEOUT)
    if result.code != 0:
        raise Refused(result.error)
    return result.out
