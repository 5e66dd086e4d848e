"""The committed pictures are what their text draws, and what they name exists."""

from __future__ import annotations

import runpy
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def drawn() -> dict[str, str]:
    path, modules = list(sys.path), set(sys.modules)
    try:
        pictures: dict[str, Callable[[], str]] = runpy.run_path(str(DOCS / "_site/pictures.py"))["PICTURES"]
        return {name: draw() for name, draw in pictures.items()}
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            del sys.modules[name]


@pytest.mark.parametrize(("name", "text"), drawn().items(), ids=lambda value: value[:20])
def test_a_picture_is_what_its_text_draws(name: str, text: str) -> None:
    assert (DOCS / "pictures" / name).read_text() == text, "python3 docs/_site/pictures.py"


def test_a_terminal_is_what_the_program_shows(tmp_path: Path) -> None:
    """In a process of its own: it runs `terok top`."""
    command = [sys.executable, str(DOCS / "_site/terminals.py"), str(tmp_path)]
    subprocess.run(command, check=True, timeout=60, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)})
    drawings = sorted(tmp_path.glob("*.svg"))
    assert [path.name for path in drawings] == ["refusal.svg", "top.svg"]
    for path in drawings:
        assert (DOCS / "pictures" / path.name).read_text() == path.read_text(), (
            ".venv/bin/python docs/_site/terminals.py"
        )


def test_every_picture_is_shown_on_a_page() -> None:
    pages = "".join(page.read_text() for page in [DOCS.parent / "README.md", *DOCS.rglob("*.md")])
    names = [*drawn(), "refusal.svg", "top.svg"]
    assert [name for name in names if f"pictures/{name}" not in pages] == []


@pytest.mark.parametrize("name", sorted(path.name for path in (DOCS / "pictures").glob("*.svg")))
def test_text_stays_inside_the_picture(name: str) -> None:
    root = ElementTree.parse(DOCS / "pictures" / name).getroot()
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    texts = [text for text in root.iter("{http://www.w3.org/2000/svg}text") if "x" in text.attrib]
    assert texts
    assert all(0 <= float(text.attrib["x"]) <= width and 0 <= float(text.attrib["y"]) <= height for text in texts)
