"""Applies a container's ruleset in its network namespace, in one transaction."""

from __future__ import annotations

from . import process
from .errors import TerokError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .schema import Shield

_TIMEOUT = 5.0


def apply(namespaces: process.Namespaces, shield: Shield) -> None:
    """Load the ruleset; raises TerokError with nft's first line when it is refused."""
    with open(shield.ruleset, "rb") as file:
        result = process.run(["nft", "-f", "-"], stdin=file.read(), timeout=_TIMEOUT, namespaces=namespaces)
    if result.code != 0:
        raise TerokError(f"nft refused the ruleset {shield.ruleset}: {result.error}")
