"""Runs the measurements: `python -m bench.run [--output FILE] [PART...]` from the root; default: all parts.

A part is a file here that has `measure(house) -> list[Figure]`. The exit code is 1 when a wanted part failed; a missed
budget is marked and changes no exit code, because a figure is a finding.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import traceback
from pathlib import Path

from bench.kit import Figure
from terok_host.runtime.host.release import version
from tests.lab.house import House

PARTS = ("start", "airlock", "vault", "tls", "signer", "shield", "gate", "memory")
PROGRAMS = {
    "podman": ["podman", "--version"],
    "crun": ["crun", "--version"],
    "nft": ["nft", "--version"],
    "dnsmasq": ["dnsmasq", "--version"],
    "slirp4netns": ["slirp4netns", "--version"],
    "pasta": ["pasta", "--version"],
    "nginx": ["nginx", "-v"],
    "mitmproxy": ["mitmdump", "--version"],
    "ssh": ["ssh", "-V"],
    "git": ["git", "--version"],
}


def line(figure: Figure) -> str:
    """One figure for people."""
    sign = "≥" if figure.at_least else "≤"
    budget = "-" if figure.budget is None else f"{sign} {figure.budget:g} {figure.unit}"
    verdict = "" if figure.kept else "MISSED"
    return f"{figure.what:<56} {figure.value:>9.2f} {figure.unit:<4} {budget:>12}  {verdict:<7} {figure.detail}"


def machine() -> dict[str, object]:
    """What it was measured on."""
    release = dict(row.split("=", 1) for row in Path("/etc/os-release").read_text().splitlines() if "=" in row)
    processor = next(
        (row.split(":", 1)[1].strip() for row in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in row),
        "",
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    return {
        "system": release.get("PRETTY_NAME", "").strip('"'),
        "kernel": platform.release().split("-")[0],
        "processor": processor,
        "processors": os.cpu_count(),
        "memory_gib": memory,
    }


def versions() -> dict[str, str]:
    """The versions of what takes part."""
    found = {"python": platform.python_version(), "terok": version()}
    for name, command in PROGRAMS.items():
        if shutil.which(command[0], path="/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            words = (done.stdout + done.stderr).replace(",", " ").replace("_", " ").replace("/", " ").split()
            found[name] = next((word.lstrip("v") for word in words if word.lstrip("v")[:1].isdigit()), "?")
    return found


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure against the budgets of the design.")
    parser.add_argument("--output", type=Path, help="where the results go, as JSON")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"which of: {', '.join(PARTS)}")
    args = parser.parse_args()
    if unknown := {*args.parts} - {*PARTS}:
        parser.error(f"there is no part {min(unknown)}; there are {', '.join(PARTS)}")
    parts: dict[str, object] = {}
    failed: list[str] = []
    for name in args.parts or PARTS:
        load, began = os.getloadavg()[0], time.monotonic()
        busy = (
            f" (the machine is busy, load {load:.1f}: times are longer than they are; ratios hold)" if load > 1 else ""
        )
        print(f"measuring {name} ...{busy}", file=sys.stderr, flush=True)
        try:
            figures = measured(name)
        except Exception:  # noqa: BLE001 - the other parts' figures are not lost for it
            traceback.print_exc()
            failed.append(name)
            continue
        for figure in sorted(figures, key=lambda figure: figure.unit != "×"):
            print(line(figure), flush=True)
        rows = [dataclasses.asdict(figure) | {"kept": figure.kept} for figure in figures]
        took = round(time.monotonic() - began)
        parts[name] = {"date": time.strftime("%Y-%m-%d"), "load": round(load, 1), "seconds": took, "figures": rows}
        if args.output is not None:
            args.output.write_text(json.dumps({"machine": machine(), "versions": versions(), "parts": parts}))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def measured(part: str) -> list[Figure]:
    """The figures of one part, in a house of its own."""
    house = House.build()
    try:
        found: list[Figure] = importlib.import_module(f"bench.{part}").measure(house)
    finally:
        house.destroy()
    return found


if __name__ == "__main__":
    sys.exit(main())
