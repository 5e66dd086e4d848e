"""Horizontal bars as SVG, from 0 or from where each begins; no library, and the same text for the same values."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH, LABEL, ROW, TOP = 860, 330, 24, 46
COLOURS = ("#3b6fb6", "#c2703d", "#4d8a57", "#8a5a9c", "#7a7a7a")
STYLE = "text{font:13px sans-serif;fill:#1f2328} .t{font-weight:600} .n{fill:#57606a;font-size:12px}"


def bars(title: str, unit: str, rows: Sequence[tuple[str, float, float]]) -> str:
    """A picture with one bar a row.

    Args:
        title: above it.
        unit: of the values.
        rows: label, beginning and end. Rows whose labels begin alike up to a colon have one colour.
    """
    height = TOP + ROW * len(rows) + 12
    most = max((end for _, _, end in rows), default=0.0) or 1.0
    scale = (WIDTH - LABEL - 110) / most
    kinds: dict[str, str] = {}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(title)}">',
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" rx="6" fill="#ffffff"/>',
        f'<text class="t" x="16" y="26">{escape(title)} ({escape(unit)})</text>',
    ]
    for index, (label, begin, end) in enumerate(rows):
        kind = label.split(":")[0] if ":" in label else ""
        colour = kinds.setdefault(kind, COLOURS[len(kinds) % len(COLOURS)])
        y = TOP + ROW * index
        x, wide = LABEL + begin * scale, max(1.0, (end - begin) * scale)
        value = f"{end - begin:.0f}" if end - begin >= 100 else f"{end - begin:.3g}"
        parts += [
            f'<text x="{LABEL - 10}" y="{y + 16}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{x:.1f}" y="{y + 3}" width="{wide:.1f}" height="{ROW - 7}" fill="{colour}"/>',
            f'<text class="n" x="{x + wide + 6:.1f}" y="{y + 16}">{value}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
