"""Runs the measurements: `python -m bench.run [--json] [NAME...]` from the root; a NAME is a file here, default all.

A file takes part by having `measure(house) -> list[Figure]`. A missed budget is marked; the exit code stays 0, because
a figure is a finding.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import platform
import sys
from pathlib import Path

from bench.kit import Figure
from tests.lab.house import House

HERE = Path(__file__).parent


def names() -> list[str]:
    """Every measurement of this folder."""
    return sorted(path.stem for path in HERE.glob("*.py") if path.stem not in ("run", "kit"))


def line(figure: Figure) -> str:
    """One figure for people."""
    sign = "≥" if figure.at_least else "≤"
    budget = "-" if figure.budget is None else f"{sign} {figure.budget:g} {figure.unit}"
    verdict = "" if figure.kept else "MISSED"
    return f"{figure.what:<52} {figure.value:>9.2f} {figure.unit:<4} {budget:>12}  {verdict:<7} {figure.detail}"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure against the budgets of the design.")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of: {', '.join(names())}")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    if load > 1:
        print(f"The machine is busy (load {load:.1f}): times are longer than they are; ratios hold.", file=sys.stderr)
    figures: list[Figure] = []
    house = House.build()
    try:
        for name in args.names or names():
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            for figure in importlib.import_module(f"bench.{name}").measure(house):
                figures.append(figure)
                if not args.json:
                    print(line(figure), flush=True)
    finally:
        house.destroy()
    if args.json:
        rows = [dataclasses.asdict(figure) | {"kept": figure.kept} for figure in figures]
        print(
            json.dumps({"kernel": platform.release(), "python": platform.python_version(), "figures": rows}, indent=1)
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
