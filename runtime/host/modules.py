"""All modules of the hook and the supervisor in one file, compiled: what `hookbin/entry.py` imports them from.

Forty small files cost each start 2 ms more than one: looking for each in its directory, opening and reading it. Their
docstrings stay out, which saves memory in every supervisor too. Each row of the table has the time and the size of its
source, so that a changed source is never passed over.
"""

from __future__ import annotations
import __future__

import ast
import importlib.machinery
import importlib.util
import marshal
import os
import sys
from pathlib import Path
from types import CodeType

from ...supervisor.ground.layout import Layout, package_root
from ..kit import files

PACKAGE = "terok_host"
FLOORS = ("hookbin", "supervisor")
STANDARD = ("_ctypes", "_json", "_struct", "_heapq", "select", "fcntl", "_socket", "errno", "struct", "heapq")
"""What they import of the standard library; what is built into the interpreter is left out."""

Row = tuple[str, int, int, bool, int, int]


def names() -> dict[str, str]:
    """Every module that goes into the file, with its source or, for an extension module, its library."""
    root = Path(package_root())
    paths: dict[str, str] = {}
    for floor in FLOORS:
        for path in sorted((root / floor).rglob("*.py")):
            parts = [*path.relative_to(root).with_suffix("").parts]
            if parts != ["hookbin", "entry"]:
                paths[".".join([PACKAGE, *(parts[:-1] if parts[-1] == "__init__" else parts)])] = str(path)
    for name in STANDARD:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.has_location and spec.origin is not None:
            paths[name] = spec.origin
    return paths


def content() -> bytes:
    """The file: this Python's version, the length of the table, the table, and the code of one module after another."""
    table: dict[str, Row] = {}
    codes: list[bytes] = []
    offset = 0
    for name, path in names().items():
        code = b"" if path.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES)) else marshal.dumps(compiled(path))
        package = os.path.basename(path) == "__init__.py"
        table[name] = path, *_stamp(path), package, offset, len(code)
        codes.append(code)
        offset += len(code)
    index = marshal.dumps((compiled(os.path.join(package_root(), "hookbin", "finder.py")), table))
    return b"".join([sys.hexversion.to_bytes(8, "little"), len(index).to_bytes(8, "little"), index, *codes])


def compiled(path: str) -> CodeType:
    """A source's code, without docstrings and without the import of `__future__`."""
    tree = ast.parse(Path(path).read_bytes(), path)
    lazy = any(isinstance(line, ast.ImportFrom) and line.module == "__future__" for line in tree.body)
    tree.body = [line for line in tree.body if not (isinstance(line, ast.ImportFrom) and line.module == "__future__")]
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:] or [ast.Pass(lineno=node.body[0].lineno, col_offset=0)]
    ast.fix_missing_locations(tree)
    flags = __future__.annotations.compiler_flag if lazy else 0
    code: CodeType = compile(tree, path, "exec", flags=flags, dont_inherit=True)
    return code


def write(layout: Layout) -> bool:
    """Write the file where it is missing or of other sources; True when it did.

    Raises:
        TerokError: it cannot be written.
    """
    sources = {name: (path, *_stamp(path)) for name, path in names().items()}
    if {name: row[:3] for name, row in read(layout.hook_modules).items()} == sources:
        return False
    files.write(layout.hook_modules, content(), mode=0o600)
    return True


def read(path: str) -> dict[str, Row]:
    """The table of a file that this Python wrote; empty for any other."""
    try:
        with open(path, "rb") as file:
            head = file.read(16)
            _, table = marshal.loads(file.read(int.from_bytes(head[8:], "little")))
    except (OSError, ValueError, EOFError, TypeError):
        return {}
    return table if head[:8] == sys.hexversion.to_bytes(8, "little") and isinstance(table, dict) else {}


def _stamp(path: str) -> tuple[int, int]:
    info = os.stat(path)
    return info.st_mtime_ns, info.st_size
