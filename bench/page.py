"""Results and their page: `python -m bench.page [NEW]` takes new results in, compares them and draws the page.

Results are kept for each system in `bench/results/`, one file with the last figures of every part; Git has the older
ones. The page and its pictures are made from the committed results of `PAGE` alone, so a test can make them again.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.budgets import BUDGETS
from bench.draw import bars

ROOT = Path(__file__).parent.parent
RESULTS, DOCS = ROOT / "bench" / "results", ROOT / "docs"
PAGE = RESULTS / "debian-12.json"
TITLES = {
    "start": "A container's life",
    "airlock": "The airlock",
    "vault": "The vault",
    "tls": "HTTPS at the providers' own hosts",
    "signer": "The signer",
    "shield": "Names and rules of the open network modes",
    "gate": "The gate",
    "memory": "A hundred containers",
}
HEAD = """\
# What it costs

`make bench` makes this page from `{source}`; do not edit it. Every figure was measured beside
what people would use instead, in turns, so that what disturbs one disturbs all: **ratios** hold on other machines,
milliseconds do not. {machine}.

## Budgets

"""


def take(new: dict[str, Any]) -> list[str]:
    """Merge new results into their system's file; returns what moved by more than its spread, as lines."""
    path = RESULTS / f"{file_name(new['machine']['system'])}.json"
    held: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"parts": {}}
    moved = compare(committed(path), new)
    held.update(machine=new["machine"], versions=new["versions"])
    held["parts"].update(new["parts"])
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(rounded(held), indent=1, ensure_ascii=False) + "\n")
    return moved


def rounded(value: Any) -> Any:
    """Numbers with four digits: more would be noise in every diff."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, (list, tuple)) else value


def file_name(system: str) -> str:
    """`Debian GNU/Linux 12 (bookworm)` is debian-12."""
    number = re.search(r"\d+", system)
    return f"{system.split()[0].lower() if system else 'unknown'}-{number[0] if number else 'x'}"


def committed(path: Path) -> dict[str, Any]:
    """The results as they were committed last; without any, no parts."""
    command = ["git", "show", f"HEAD:{path.relative_to(ROOT)}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {"parts": {}}
    return found


def compare(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """One line for each figure that moved by more than both spreads together."""
    before = {row["what"]: row for part in old["parts"].values() for row in part["figures"]}
    lines = []
    for part in new["parts"].values():
        for row in part["figures"]:
            was = before.get(row["what"])
            if was is None or was["value"] <= 0 or row["value"] <= 0:
                continue
            moved = math.log(row["value"] / was["value"])
            if abs(moved) > 2 * math.hypot(was["spread"], row["spread"], 0.02):
                better = (moved > 0) == row["at_least"]
                change = f"{was['value']:.4g} → {row['value']:.4g} {row['unit']}".strip()
                lines.append(f"{'better' if better else 'WORSE '} {row['what']}: {change}")
    return lines


def page(results: dict[str, Any], source: str) -> dict[str, str]:
    """The page and its pictures: path below docs/ -> text."""
    files: dict[str, str] = {}
    rows = {row["what"]: row for part in results["parts"].values() for row in part["figures"]}
    host = results["machine"]
    size = f"{host['processors']} processors, {host['memory_gib']} GiB"
    where = f"Measured on: {host['system']}, Linux {host['kernel']}, {size}"
    text = [HEAD.format(source=source, machine=where), budgets(rows)]
    for part, title in TITLES.items():
        measured = results["parts"].get(part)
        if measured is not None:
            text += [f"\n## {title}\n\n", *pictures(part, measured["figures"], files), table(measured["figures"])]
            text.append(f"\nMeasured on {measured['date']} in {measured['seconds']} s (`make bench BENCH={part}`).\n")
    names = ", ".join(f"{name} {version}" for name, version in sorted(results["versions"].items()))
    text.append(f"\n## Versions\n\n{fold(names)}.\n")
    files["performance.md"] = "".join(text)
    return files


def fold(text: str, width: int = 118) -> str:
    """The text in lines of at most `width` columns."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append(word)
        else:
            lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(lines)


def budgets(rows: dict[str, Any]) -> str:
    """The table of the budgets; a missed one is red and says why."""
    lines = ["| what | budget | measured | |\n", "|---|---|---|---|\n"]
    for budget in BUDGETS:
        held = [rows.get(name) for name in budget.figures]
        limits = "; ".join(limit(row) if row else "?" for row in held)
        values = "; ".join(number(row["value"], row["unit"]) if row else "not measured" for row in held)
        if any(row is None for row in held):
            verdict = "not measured"
        elif all(row["kept"] for row in held if row):
            verdict = '<span style="color:#1a7f37">kept</span>'
        else:
            verdict = f'<span style="color:#cf222e">**missed**</span> {budget.why}'
        lines.append(f"| {budget.what} | {limits} | {values} | {verdict} |\n")
    return "".join(lines)


def limit(row: dict[str, Any]) -> str:
    """A figure's budget."""
    return (
        f"{'≥' if row['at_least'] else '≤'} {number(row['budget'], row['unit'])}" if row["budget"] is not None else "-"
    )


def number(value: float, unit: str) -> str:
    """A value with its unit, in three digits or all before the point."""
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{text} {unit}".strip()


def table(figures: list[dict[str, Any]]) -> str:
    """All figures of a part, ratios first."""
    lines = ["| what | measured | budget | behind it |\n", "|---|---|---|---|\n"]
    for row in sorted(figures, key=lambda row: row["unit"] != "×"):
        detail = str(row["detail"]).replace("|", "\\|")
        lines.append(f"| {row['what']} | {number(row['value'], row['unit'])} | {limit(row)} | {detail} |\n")
    return "".join(lines)


def pictures(part: str, figures: list[dict[str, Any]], files: dict[str, str]) -> list[str]:
    """Draw the figures that have parts; returns the lines that show them."""
    lines = []
    for row in figures:
        if row["series"]:
            words = (
                re.sub("[^a-z0-9]+", "-", row["what"].split(", to ")[0].lower())
                .strip("-")
                .removeprefix(f"{part}-")[:30]
                .strip("-")
            )
            name = f"pictures/performance-{part}-{words}.svg"
            unit = {"airlock: bytes": "Gbit/s", "airlock: connect": "ms", "requests a second": "requests/s"}
            shown = next((text for start, text in unit.items() if row["what"].startswith(start)), row["unit"])
            title = row["what"].split(", to ")[0].removesuffix(" (PSS)")
            files[name] = bars(title, shown, [(str(label), float(a), float(b)) for label, a, b in row["series"]])
            lines.append(f"![{title}]({name})\n\n")
    return lines


def main() -> int:
    """Take results in, print what moved, and draw."""
    if len(sys.argv) > 1:
        moved = take(json.loads(Path(sys.argv[1]).read_text()))
        print(
            "\n".join(["", "since the last committed results:", *(moved or ["nothing moved by more than its spread"])])
        )
    if not PAGE.exists():
        return 0
    for old in DOCS.glob("pictures/performance-*.svg"):
        old.unlink()
    for name, text in page(json.loads(PAGE.read_text()), str(PAGE.relative_to(ROOT))).items():
        (DOCS / name).write_text(text)
    print(f"wrote {DOCS.relative_to(ROOT)}/performance.md and its pictures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
