"""The pictures of the documents, drawn as SVG from text; light and dark, without any font file.

`python3 docs/_site/pictures.py` writes them to docs/pictures/; a test compares.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[2]
DIRECTORY = ROOT / "docs" / "pictures"
STYLE = """
  text { font: 14px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600 } .small { font-size: 12px; fill: #57606a } .label { font-size: 12px; fill: #57606a }
  .box { fill: #ffffff; stroke: #8c959f } .ours { fill: #ddf4ff; stroke: #0969da }
  .untrusted { fill: #fff1e5; stroke: #bc4c00 } .secret { fill: #dafbe1; stroke: #1a7f37 }
  .group { fill: none; stroke: #8c959f; stroke-dasharray: 5 4 }
  .arrow { fill: none; stroke: #57606a; stroke-width: 1.5 } .refused { stroke: #cf222e } .head { fill: #57606a }
  .refusedhead { fill: #cf222e } .paper { fill: #ffffff }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .small, .label { fill: #9da7b3 } .paper { fill: #0d1117 }
    .box { fill: #161b22; stroke: #8b949e } .ours { fill: #0c2d6b; stroke: #58a6ff }
    .untrusted { fill: #5a1e02; stroke: #f0883e } .secret { fill: #033a16; stroke: #3fb950 }
    .group { stroke: #6e7681 } .arrow { stroke: #9da7b3 } .head { fill: #9da7b3 }
    .refused { stroke: #f85149 } .refusedhead { fill: #f85149 }
  }
"""
LINE = 17
"""Pixels from one line of text to the next."""


class Box(NamedTuple):
    """A rectangle with text. `kind`: box, ours, untrusted, secret, or group (dashed, its title at the upper edge)."""

    x: int
    y: int
    width: int
    height: int
    title: str
    lines: Sequence[str] = ()
    kind: str = "box"

    def svg(self) -> str:
        """The rectangle, its title in bold, the other lines small."""
        out = [
            f'<rect class="{self.kind}" x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}" rx="6"/>'
        ]
        if self.kind == "group":
            return out[0] + _text(self.x + 10, self.y + 19, self.title, "title", "start")
        top = self.y + (self.height - LINE * (1 + len(self.lines))) / 2 + 13
        middle = self.x + self.width / 2
        for index, line in enumerate([self.title, *self.lines]):
            out.append(_text(middle, top + index * LINE, line, "small" if index else "title", "middle"))
        return "".join(out)


class Arrow(NamedTuple):
    """A line through points with a head at its end. `at`: where the label's middle stands, from the middle of the
    longest piece when it is None."""

    points: Sequence[tuple[int, int]]
    label: str = ""
    at: tuple[int, int] | None = None
    refused: bool = False

    def svg(self) -> str:
        """The line, its head, its label."""
        path = " ".join(f"{'L' if index else 'M'}{x} {y}" for index, (x, y) in enumerate(self.points))
        kind, head = ("arrow refused", "refusedhead") if self.refused else ("arrow", "head")
        line = f'<path class="{kind}" d="{path}" marker-end="url(#{head})"/>'
        if not self.label:
            return line
        pieces = zip(self.points, self.points[1:], strict=False)
        (x1, y1), (x2, y2) = max(pieces, key=lambda ends: abs(ends[0][0] - ends[1][0]) + abs(ends[0][1] - ends[1][1]))
        x, y = self.at or ((x1 + x2) // 2, (y1 + y2) // 2 - 6)
        return line + _text(x, y, self.label, "label", "middle")


class Note(NamedTuple):
    """Text alone, from `x` to the right."""

    x: int
    y: int
    text: str
    kind: str = "small"

    def svg(self) -> str:
        """The text."""
        return _text(self.x, self.y, self.text, self.kind, "start")


def picture(width: int, height: int, title: str, parts: Sequence[Box | Arrow | Note]) -> str:
    """A whole SVG file.

    Args:
        width, height: pixels.
        title: what the picture shows, for readers who do not see it.
        parts: drawn in this order.
    """
    heads = "".join(
        f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
        f'orient="auto-start-reverse"><path class="{name}" d="M0 0L10 5L0 10z"/></marker>'
        for name in ("head", "refusedhead")
    )
    body = "\n".join(part.svg() for part in parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(title)}">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>\n'
        f'<defs>{heads}</defs>\n<rect class="paper" width="{width}" height="{height}"/>\n{body}\n</svg>\n'
    )


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'


def overview() -> str:
    """What a container reaches, and through what."""
    return picture(
        860,
        400,
        "A container has only a loopback interface; each of its connections arrives at one of terok's services",
        [
            Box(20, 20, 250, 360, "container: loopback only", kind="group"),
            Box(40, 60, 210, 60, "agent", ("phantom tokens, no secret",), "untrusted"),
            Box(40, 162, 210, 40, "https, any client", (), "untrusted"),
            Box(40, 214, 210, 46, "ssh, git commit -S", (), "untrusted"),
            Box(40, 268, 210, 46, "git push", (), "untrusted"),
            Box(40, 330, 210, 36, "anything else", (), "untrusted"),
            Box(330, 20, 250, 360, "host: one process a service", kind="group"),
            Box(350, 60, 210, 54, "airlock", ("allowed names only",), "ours"),
            Box(350, 152, 210, 54, "vault", ("phantom token to credential",), "secret"),
            Box(350, 214, 210, 46, "signer", ("keys stay here",), "secret"),
            Box(350, 268, 210, 46, "gate", ("judges and reviews pushes",), "ours"),
            Box(650, 60, 190, 54, "allowed hosts", ("pypi.org, npmjs.com, ...",)),
            Box(650, 152, 190, 54, "your APIs", ("with your credential",)),
            Box(650, 268, 190, 46, "your forge", ("what you approved",)),
            Arrow([(250, 182), (300, 182), (300, 87), (350, 87)], "by name", (312, 79)),
            Arrow([(455, 114), (455, 152)], "your APIs", (488, 138)),
            Arrow([(250, 237), (350, 237)]),
            Arrow([(250, 291), (350, 291)]),
            Arrow([(250, 348), (322, 348)], "refused", (296, 341), refused=True),
            Arrow([(560, 87), (650, 87)]),
            Arrow([(560, 179), (650, 179)], "TLS"),
            Arrow([(560, 291), (650, 291)]),
        ],
    )


def life() -> str:
    """One container from `terok run` to `cleanup`."""
    return picture(
        860,
        430,
        "The life of one container: launch, hook, supervisor, services on demand, end",
        [
            Box(20, 20, 200, 70, "terok run NAME", ("writes the state bundle,", "becomes podman run")),
            Box(330, 20, 200, 70, "createRuntime hook", ("checks the annotations,", "forks the supervisor"), "ours"),
            Box(640, 20, 200, 70, "container starts", ("only after `ready`",), "untrusted"),
            Arrow([(220, 55), (330, 55)], "podman, crun"),
            Arrow([(530, 55), (640, 55)], "ready"),
            Box(330, 150, 200, 88, "supervisor", ("holds sockets, rules, mounts;", "parses nothing; sleeps"), "ours"),
            Box(40, 160, 200, 68, "standby", ("takes over when the", "supervisor is killed"), "ours"),
            Arrow([(430, 90), (430, 150)], "fork", (452, 125)),
            Arrow([(330, 194), (240, 194)]),
            Box(640, 140, 200, 40, "vault", (), "secret"),
            Box(640, 186, 200, 40, "signer", (), "secret"),
            Box(640, 232, 200, 40, "gate", (), "ours"),
            Arrow([(530, 194), (585, 194), (585, 160), (640, 160)]),
            Arrow([(530, 194), (585, 194), (585, 206), (640, 206)]),
            Arrow([(530, 194), (585, 194), (585, 252), (640, 252)]),
            Note(640, 292, "started by the first connection,"),
            Note(640, 308, "gone again when idle"),
            Box(330, 340, 200, 70, "container ends", ("its pidfd becomes readable",), "untrusted"),
            Arrow([(430, 238), (430, 340)], "sleeps until", (472, 292)),
            Box(640, 340, 200, 70, "poststop hook", ("makes sure that nothing", "is left"), "ours"),
            Arrow([(530, 375), (640, 375)]),
            Box(20, 340, 200, 70, "podman start NAME", ("the same wiring and tokens;", "`terok cleanup` revokes them")),
            Arrow([(330, 375), (220, 375)]),
            Arrow([(120, 340), (120, 290), (280, 290), (280, 72), (330, 72)]),
        ],
    )


def request() -> str:
    """One request on its way through the vault."""
    steps = (
        ("read strictly", "one reading or none: 400"),
        ("token", "of this container, one provider: 401"),
        ("rules", "method and canonical path: 403"),
        ("limits", "usage, requests a minute: 429"),
        ("credential", "unlocked, refreshed: 503"),
        ("dial", "checked address, verified TLS: 502"),
        ("echo guard", "no secret comes back"),
        ("audit line", "then the answer's last byte"),
    )
    parts: list[Box | Arrow | Note] = [
        Box(20, 40, 170, 80, "client", ("in the container,", "phantom token"), "untrusted"),
        Box(690, 40, 150, 80, "provider", ("real credential,", "over TLS")),
    ]
    for index, (title, line) in enumerate(steps):
        row = index if index < 6 else 13 - index
        column = 330 if index < 6 else 90
        kind = "secret" if title in ("credential", "echo guard") else "ours"
        parts.append(Box(column, 20 + 58 * row, 220, 44, title, (line,), kind))
    parts += [Arrow([(440, 64 + 58 * row), (440, 78 + 58 * row)]) for row in range(5)]
    parts += [
        Arrow([(190, 70), (260, 70), (260, 42), (330, 42)], "request", (225, 60)),
        Arrow([(550, 332), (765, 332), (765, 120)], "what was judged is what is sent", (660, 324)),
        Arrow([(790, 120), (790, 449), (310, 449)], "answer", (560, 441)),
        Arrow([(200, 427), (200, 413)]),
        Arrow([(90, 391), (55, 391), (55, 120)], "answer", (84, 250)),
    ]
    return picture(860, 480, "The way of a request through the vault: what is checked, in which order", parts)


def house() -> str:
    """The four floors and their rooms."""
    floors = (
        ("runtime", "Podman, the operator, configuration"),
        ("hookbin", "the two hook stages; milliseconds count"),
        ("sidecars", "one folder a service, each in its own process"),
        ("supervisor", "processes, namespaces, the layout on disk"),
    )
    parts: list[Box | Arrow | Note] = []
    for index, (folder, purpose) in enumerate(floors):
        y = 20 + 92 * index
        parts.append(Box(20, y, 830, 78, f"floor {4 - index}: {folder}/, {purpose}", kind="group"))
        rooms = sorted(path.parent.name for path in (ROOT / folder).glob("*/__init__.py"))
        width = min(100, 806 // max(1, len(rooms)))
        for column, room in enumerate(rooms):
            parts.append(Box(32 + width * column, y + 32, width - 6, 34, room, (), "ours"))
    parts.append(Arrow([(875, 40), (875, 360)], "imports", (875, 384)))
    return picture(910, 400, "Four floors; each imports only the floors below it", parts)


def airlock() -> str:
    """A name, a connection to its address, and what the relay does with it."""
    return picture(
        860,
        440,
        "A name of the airlock, a connection to its address, and the relay that decides",
        [
            Box(20, 20, 380, 400, "container: only lo", kind="group"),
            Box(40, 60, 120, 320, "programs", (), "untrusted"),
            Box(240, 60, 140, 60, "dnsmasq", ("no upstream",), "ours"),
            Arrow([(160, 80), (240, 80)], "name?"),
            Arrow([(240, 106), (160, 106)], "198.18.1.4", (200, 121)),
            Box(240, 170, 140, 60, "nft: redirect", ("198.18.0.0/15", "to 127.0.0.1:9440"), "ours"),
            Arrow([(160, 200), (240, 200)], "connect"),
            Box(240, 270, 140, 44, "no route", ("EACCES, at once",)),
            Arrow([(160, 292), (240, 292)], "8.8.8.8", refused=True),
            Box(240, 336, 140, 44, "helper", ("published ports",), "ours"),
            Arrow([(240, 358), (160, 358)]),
            Box(440, 20, 400, 400, "host", kind="group"),
            Box(
                460,
                130,
                190,
                140,
                "relay",
                ("198.18.1.4: api.example.com", "TLS or Host names it?", "allowed on this port?", "address checked?"),
                "ours",
            ),
            Arrow([(380, 200), (460, 200)]),
            Note(462, 118, "holds no secret"),
            Box(700, 60, 120, 54, "resolver", ("after a yes",)),
            Arrow([(650, 160), (680, 160), (680, 87), (700, 87)]),
            Box(700, 172, 120, 56, "the server", ("bytes spliced",)),
            Arrow([(650, 200), (700, 200)]),
            Arrow([(555, 270), (555, 300)], refused=True),
            Note(462, 318, "no: TLS alert, 403 or reset,"),
            Note(462, 334, "and a line with the command"),
            Box(700, 336, 120, 44, "your browser", ()),
            Arrow([(700, 358), (380, 358)], "127.0.0.1:8080", (560, 374)),
        ],
    )


PICTURES = {
    "airlock.svg": airlock,
    "overview.svg": overview,
    "life.svg": life,
    "request.svg": request,
    "house.svg": house,
}


def main() -> None:
    """Write every picture."""
    for name, draw in PICTURES.items():
        (DIRECTORY / name).write_text(draw())


if __name__ == "__main__":
    main()
