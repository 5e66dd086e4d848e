"""Whether a directory has a project file at all: most launches find none and read nothing more."""

from __future__ import annotations

import os

from . import FILE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..kit.config import Config


def applied(cfg: Config, directory: str) -> Config:
    """The configuration with what `terok run` and `terok prepare` take from a directory's project file.

    Raises:
        TerokError: the file is wrong (USAGE), or asks for more without being trusted (REFUSED).
    """
    if not os.path.lexists(os.path.join(directory, FILE)):
        return cfg
    from .trust import applied

    return applied(cfg, directory)
