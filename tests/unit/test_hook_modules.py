"""The file with all modules of the hook: used when it is the operator's and fits the sources, passed over otherwise."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from terok_host.runtime.host import modules
from terok_host.supervisor.ground import layout

REPORT = """
import runpy, sys
sys.argv = [{entry!r}, 'poststop', {data!r}, {data!r}, {data!r}]
import os
os.dup2(os.open('/dev/null', 0), 0)
os._exit = lambda code: None
runpy.run_path({entry!r}, run_name='__main__')
from terok_host.supervisor import start, supervise
ours = [name for name in sys.modules if name.startswith('terok_host.')]
print(*(type(sys.modules[name].__spec__.loader).__name__ + ' ' + name for name in ours), sep=';')
"""


def places(tmp_path: Path) -> layout.Layout:
    """A layout below the directory, with the file written."""
    made = layout.Layout(*(str(tmp_path / name) for name in ("data", "run", "config")))
    Path(made.hooks).mkdir(parents=True)
    assert modules.write(made)
    return made


def loaders(data: str, root: str | None = None) -> dict[str, str]:
    """What the hook's modules were imported by, once every one is."""
    entry = os.path.join(root or layout.package_root(), "hookbin", "entry.py")
    script = REPORT.format(entry=entry, data=data)
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)
    rows = (row.split() for row in done.stdout.strip().splitlines()[-1].split(";"))
    return {name: loader for loader, name in rows}


def test_every_module_comes_from_the_file(tmp_path: Path) -> None:
    assert {*loaders(places(tmp_path).data).values()} == {"Finder"}


def test_the_hook_knows_where_the_file_is(tmp_path: Path) -> None:
    made = places(tmp_path)
    assert made.hook_modules == made.data + "/hooks.d/modules"


def test_it_is_written_again_only_when_a_source_has_changed(tmp_path: Path) -> None:
    made = places(tmp_path)
    assert not modules.write(made)
    Path(made.hook_modules).write_bytes(b"damaged")
    assert modules.write(made)
    assert not modules.write(made)


def _by_others(path: Path) -> None:
    path.chmod(0o622)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def _of_another_python(path: Path) -> None:
    path.write_bytes(b"\0" * 8 + path.read_bytes()[8:])


def _linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


@pytest.mark.parametrize("spoil", [_by_others, _cut, _of_another_python, _linked, Path.unlink])
def test_a_file_that_cannot_be_believed_is_passed_over(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    made = places(tmp_path)
    spoil(Path(made.hook_modules))
    assert {*loaders(made.data).values()} == {"SourceFileLoader"}


def test_a_source_that_has_changed_counts_and_not_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "copy"
    for floor in modules.FLOORS:
        shutil.copytree(Path(layout.package_root()) / floor, root / floor, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(modules, "package_root", lambda: str(root))
    made = places(tmp_path)
    changed = root / "supervisor" / "reap.py"
    changed.write_text(changed.read_text() + "\n")
    found = loaders(made.data, str(root))
    assert found.pop("terok_host.supervisor.reap") == "SourceFileLoader"
    assert {*found.values()} == {"Finder"}
