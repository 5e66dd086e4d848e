"""Finds the hook's modules in the one file that `terok setup` writes; see `runtime/host/modules.py`.

`entry.py` takes this module's code from that file too, and calls `install`.
"""

from __future__ import annotations

import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    Row = tuple[str, int, int, bool, int, int]
else:
    ModuleSpec = type(sys.__spec__)


class Finder:
    """Imports from the file; a module whose source has changed since then is imported as any other is.

    Args:
        fd: the file.
        start: where in it the first module's code begins.
        table: module -> source, its time and size, whether it is a package, offset and length of its code (0: none,
            since the source is a shared library).
    """

    def __init__(self, fd: int, start: int, table: dict[str, Row]) -> None:
        self._fd, self._start, self._table = fd, start, table

    def find_spec(self, name: str, _path: object, _target: object = None) -> ModuleSpec | None:
        """See importlib.abc.MetaPathFinder."""
        row = self._table.get(name)
        if row is None:
            return None
        path, modified, size, package, _, length = row
        info = os.stat(path)
        if info.st_mtime_ns != modified or info.st_size != size:
            return None
        if not length:
            from _frozen_importlib_external import ExtensionFileLoader

            return ModuleSpec(name, ExtensionFileLoader(name, path), origin=path)
        spec = ModuleSpec(name, self, origin=path, is_package=package)  # type: ignore[arg-type]  # a loader without the base
        spec.has_location = True
        if package:
            spec.submodule_search_locations = [os.path.dirname(path)]
        return spec

    def create_module(self, _spec: ModuleSpec) -> ModuleType | None:
        """See importlib.abc.Loader."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """See importlib.abc.Loader."""
        *_, offset, length = self._table[module.__name__]
        exec(marshal.loads(os.pread(self._fd, length, self._start + offset)), module.__dict__)


def install(fd: int, start: int, table: dict[str, Row]) -> None:
    """Make imports look into the file first; arguments as of `Finder`."""
    sys.meta_path.insert(0, Finder(fd, start, table))
