"""The documents: every command in them exists, every link leads somewhere, and lines wrap."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from terok_host.runtime import cli, parser
from terok_host.runtime.verbs import BY_PATH
from terok_host.supervisor.ground.errors import TerokError

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
COLUMNS = 120
PROGRAMS = ("terok", "terok-shield", "terok-sandbox", "terok-executor")


def blocks(text: str) -> Iterator[str]:
    """The lines of code blocks and the words in backquotes."""
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    plain = re.sub(r"^```[^\n]*\n.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for line in "\n".join(fenced).splitlines():
        yield line
    for line in plain.splitlines():
        if line.startswith("    "):
            yield line
        else:
            yield from re.findall(r"`([^`]+)`", line)


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each command line of terok on a page, up to a comment, a pipe or `--`."""
    for line in blocks(page.read_text()):
        text = re.sub(r"\s+#.*$", "", line.strip().removeprefix("$ "))
        if text.split(" ")[0] not in PROGRAMS or " " not in text:
            continue
        text = re.split(r" [|<>]|; | && ", text)[0].replace("...", "")
        try:
            words = shlex.split(text)
        except ValueError:
            continue  # a fragment of a sentence
        yield words


def verb_of(words: list[str]) -> str | None:
    """What is wrong with the verb of a command line; None when it exists."""
    words = [word for word in words if word != "VERB"]  # it stands for any verb
    if len(words) < 2:
        return None
    try:
        row, _, rest = cli.find([word for word in words[1:] if word != "--json"], words[0])
    except TerokError as error:
        return error.what
    if row is None:
        return None if rest[0].startswith("-") or not rest[0].islower() else f"no verb in {words}"
    if not row.target:
        return None
    known = {option for action in parser.build(row.load(), "terok")._actions for option in action.option_strings}
    given = [word.split("=")[0] for word in rest[: rest.index("--")]] if "--" in rest else rest
    wrong = [word for word in given if word.startswith("--") and word.split("=")[0].rstrip(",]") not in known]
    return f"{' '.join(words)}: no option {wrong[0]}" if wrong else None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_on_the_page_exists(page: Path) -> None:
    assert [problem for words in commands(page) if (problem := verb_of(words))] == []


def test_a_command_that_does_not_exist_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("`terok fly box`, `terok run --fast box`\n\n    terok vault status\n")
    assert len([problem for words in commands(page) if (problem := verb_of(words))]) == 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_prose_wraps(page: Path) -> None:
    text = re.sub(r"^```[^\n]*\n.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    long = [line for line in text.splitlines() if len(line) > COLUMNS and not line.startswith(("|", "    "))]
    assert long == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_every_group_of_verbs_is_explained_somewhere() -> None:
    text = " ".join(word for page in PAGES for word in page.read_text().split())
    assert [path for path in BY_PATH if " " not in path and f"terok {path}" not in text] == []
