"""Pictures of a terminal, drawn as SVG from what the program shows; light and dark, without any font file.

`.venv/bin/python docs/_site/terminals.py` writes them to docs/pictures/; a test compares. `terok top` is drawn by the
program itself, over a fixed snapshot at a fixed time; the story of a refusal is the README's.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

from rich.cells import cell_len
from rich.segment import Segment

from terok_host.runtime.kit.env import Env, Output
from terok_host.runtime.queue.items import Answer, Item
from terok_host.runtime.top.app import Top
from terok_host.runtime.top.model import Container, Refusal, Service, Snapshot, Usage

ROOT = Path(__file__).parents[2]
DIRECTORY = ROOT / "docs" / "pictures"
CELL, LINE, EDGE = 7.8, 18, 14
"""Pixels of one letter (0.6 of its height, as most fonts have it), of one line, and around them."""
SIZE = (80, 24)
STYLE = """
  text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #1f2328; white-space: pre }
  .paper { fill: #ffffff; stroke: #8c959f } .bold { font-weight: 700 } .dim { fill: #6e7781 }
  .under { text-decoration: underline } .bad { fill: #cf222e } .good { fill: #1a7f37 } .warning { fill: #9a6700 }
  .chosen { fill: #1f2328 } .reverse { fill: #ffffff }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .paper { fill: #0d1117; stroke: #8b949e } .dim { fill: #8b949e } .bad { fill: #f85149 }
    .good { fill: #3fb950 } .warning { fill: #d29922 } .chosen { fill: #e6edf3 } .reverse { fill: #0d1117 }
  }
"""
COLOURS = {"red": "bad", "green": "good", "yellow": "warning"}
NOON = 1_790_000_000.0
"""When the pictures were taken."""


class Run(NamedTuple):
    """Letters of one style; `classes` as in `STYLE`."""

    text: str
    classes: str = ""


def terminal(title: str, lines: Iterable[Iterable[Run]], columns: int = SIZE[0]) -> str:
    """A whole SVG file.

    Args:
        title: what the picture shows, for readers who do not see it.
        lines: from top to bottom, each as runs of letters.
        columns: letters in a line.
    """
    body: list[str] = []
    rows = [list(line) for line in lines]
    for number, row in enumerate(rows):
        at, top = 0, EDGE + LINE * number
        for run in row:
            wide = cell_len(run.text)
            if run.text.strip() or "reverse" in run.classes:
                body.append(_run(run, EDGE + at * CELL, top, wide * CELL))
            at += wide
    width, height = 2 * EDGE + columns * CELL, 2 * EDGE + LINE * len(rows)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" role="img" '
        f'aria-label="{escape(title)}">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>\n'
        f'<rect class="paper" x="1" y="1" width="{width - 2:g}" height="{height - 2}" rx="8"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _run(run: Run, x: float, top: int, width: float) -> str:
    if "reverse" in run.classes:
        behind = f'<rect class="chosen" x="{x:g}" y="{top}" width="{width:g}" height="{LINE}"/>'
        words = run.text
    else:
        behind, words = "", run.text.strip(" ")
        x += CELL * (len(run.text) - len(run.text.lstrip(" ")))
    # the length is given, so that columns stay columns in whatever font there is
    length = f' textLength="{cell_len(words) * CELL:g}" lengthAdjust="spacingAndGlyphs"' if len(words) > 1 else ""
    classes = f' class="{run.classes}"' if run.classes else ""
    return f'{behind}<text{classes} x="{x:g}" y="{top + 13}"{length} xml:space="preserve">{escape(words)}</text>'


# -- terok top --


def _never(env: Env, answer: Answer) -> None:
    raise AssertionError("a picture decides nothing")


def _item(what: str, identity: str, kind: str, container: str, left: float, allow: str, deny: str) -> Item:
    return Item(identity, kind, container, what, NOON - 20, NOON + left, "", allow, deny, _never)


def snapshot() -> Snapshot:
    """A day with four containers."""
    shield = Service("airlock", "running", 9_400_000, 0)
    services = (shield, Service("vault", "running", 17_100_000, 0), Service("gate", "on demand", None, 0))
    ask, sign = "terok shield decide 5f0c2a91be7d", "terok ssh confirm 8c41d0"
    host = "connect to downloads.example.org (port 443)"
    raised = "terok vault limit docs --requests 1000 --period day"
    spend = "use more than 500 requests each day in the scope docs"
    push = "create refs/heads/agent/fix-login to 4be1c9a02f17"
    queue = (
        _item(host, "5f0c2a91be7d", "connection", "web", 41, f"{ask} allow", f"{ask} deny"),
        _item(
            "log in to github.com as git with work", "8c41d0", "signature", "web", 25, f"{sign} --yes", f"{sign} --no"
        ),
        _item(spend, "docs/limit", "limit", "", 40_000, raised, "terok decide docs/limit deny"),
        _item(push, "work/7", "proposal", "web", float("inf"), "terok gate approve work 7", "terok gate reject work 7"),
    )
    docs, web = Usage(500, 1_310_000, 41_200, 980_000, 4.12), Usage(812, 6_420_000, 118_000, 5_100_000, 11.87)
    containers = (
        Container("old-clone", "UNPROTECTED", "pasta", fix="podman rm --force old-clone"),
        Container(
            "docs", "running", "airlock", "docs", "standard", 26_500_000, 3_600.0, services, usage=docs, refused=1
        ),
        Container(
            "web", "running", "airlock", "work", "standard", 34_100_000, 7_260.0, services, usage=web, refused=14
        ),
        Container("scratch", "stopped", "airlock", "work"),
    )
    refusals = (
        Refusal("14:03:22", "web", "shield", "telemetry.example.com:443", "not in the profiles", "", 9),
        Refusal("14:01:07", "web", "gate", "push refs/heads/main", "protected", "", 1),
        Refusal("13:58:40", "docs", "vault", "DELETE api.github.com/repos/me/project", "rule no-delete", "", 1),
    )
    return Snapshot(NOON, containers, queue, refusals, priced="2026-06")


async def _shown(*keys: str) -> list[list[Run]]:
    os.environ.pop("NO_COLOR", None)  # Textual looks for it, and the picture has colours
    env = Env({"HOME": "/nonexistent"}, out=Output(json_output=False, stream=io.StringIO()), messages=io.StringIO())
    app = Top(env, lambda now: snapshot(), clock=lambda: NOON)
    async with app.run_test(size=SIZE) as pilot:
        while not app.snapshot.queue:
            await pilot.pause(0.01)
        await pilot.pause()
        await pilot.press(*keys)
        await pilot.pause()
        return [[_styled(segment) for segment in strip] for strip in app.screen._compositor.render_strips()]


def _styled(segment: Segment) -> Run:
    style = segment.style
    if style is None:
        return Run(segment.text)
    colour = style.color.name if style.color is not None else ""
    words = {
        "bold": style.bold,
        "under": style.underline,
        "reverse": style.reverse,
        "dim": style.dim or colour == "bright_black",
        COLOURS.get(colour, ""): True,
    }
    return Run(segment.text, " ".join(word for word, on in words.items() if word and on))


def top() -> str:
    """`terok top`, with an answer offered."""
    return terminal("terok top: what waits, the containers, the last refusals", asyncio.run(_shown("a")))


# -- a refusal --


STORY = {"$ ": "bold", "curl:": "bad"}
"""How lines that begin so are drawn."""


def refusal() -> str:
    """A refusal and its cure, as the README tells it."""
    readme = (ROOT / "README.md").read_text()
    story = re.search(r"```\n(\$ terok run box.*?)\n```", readme, re.DOTALL)
    assert story is not None, "the README has the story of a refusal"
    lines = story[1].split("\n")
    runs = [
        [Run(line, "bold" if line.startswith("$ ") else "bad" if line.startswith("curl:") else "")] for line in lines
    ]
    return terminal("A refused name, why, and the command that allows it", runs, max(map(len, lines)))


PICTURES = {"top.svg": top, "refusal.svg": refusal}


def main() -> None:
    """Write every picture; to another directory when one is given."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else DIRECTORY
    for name, draw in PICTURES.items():
        (directory / name).write_text(draw())


if __name__ == "__main__":
    main()
