"""Draws docs/reliability.md: `python -m tests.chaos.page [NEW]`, from `results.json` here, which NEW is merged into."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results.json", HERE.parent.parent / "docs" / "reliability.md"
HEAD = """\
# What it survives

`make chaos` makes this page from `tests/chaos/results.json`; do not edit it. Real containers with every service in the
airlock are attacked while they ask, all the time, for what they may not have. One criterion holds for each row:

- **nothing forbidden arrives**: servers of this machine stand at the forbidden addresses, TCP and UDP, and count;
- **no secret is inside**: the credential is looked for in the container's files, environments and command lines;
- **it recovers by itself** within {bound:g} seconds: vault, signer, names, relay and firewall all answer again;
- **nothing is left** after the container's removal: no process, socket, mount, namespace or file.

The last run had the seed {seed} and was on {date}. While the scenarios ran, {allowed} allowed connections arrived and
{forbidden} forbidden ones.

| what is done | state | times | works again after, at most |
|---|---|---|---|
"""
TAIL = """
The clock is a stand-in for all processes of terok (`tests/chaos/clock.c`); the disks are read-only for what is opened
from then on. The previous release is the last tag, or an earlier commit where there is none (`tests/chaos/wheels.sh`).
A killed `podman run` may leave a container that runs and that Podman does not list: it stays guarded until it ends, and
`terok doctor` names the command that ends it.
"""
BOUND = 10


def page(results: dict[str, Any]) -> str:
    """The page's text; a broken scenario is red and says what broke."""
    runs = results["runs"]
    lines = [
        HEAD.format(
            bound=BOUND,
            seed=results["seed"],
            date=results["date"],
            allowed=sum(run["allowed"] for run in runs.values()),
            forbidden=sum(run["forbidden"] for run in runs.values()),
        )
    ]
    for name, run in runs.items():
        for what, state, times, recovery in run["rows"]:
            after = "-" if recovery is None else f"{recovery:.2f} s"
            lines.append(f"| {what} | {state} | {times} | {after} |\n")
        if run["broken"]:
            lines.append(f'| {name} | | | <span style="color:#cf222e">**broken**</span> {run["broken"]} |\n')
    return "".join([*lines, TAIL])


def main() -> int:
    """Merge new results in, if there are any, and write the page."""
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"runs": {}}
    if len(sys.argv) > 1:
        new = json.loads(Path(sys.argv[1]).read_text())
        results = {**new, "runs": {**results["runs"], **new["runs"]}}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(page(results))
    print(f"wrote docs/{PAGE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
