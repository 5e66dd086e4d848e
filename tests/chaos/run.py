"""Runs the scenarios: `python -m tests.chaos.run [--seed N] [--output FILE] [SCENARIO...]` in a lab, from the root."""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import traceback
from pathlib import Path

from tests.chaos.scenarios import SCENARIOS
from tests.chaos.world import Canary, Row, furnish
from tests.lab.house import House

SEED = 1


def main() -> int:
    """Run, print every row, and write the results; exit code 1 when a criterion was broken."""
    parser = argparse.ArgumentParser(description="What terok survives.")
    parser.add_argument("--seed", type=int, default=SEED, help="of the chances (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="where the results go, as JSON")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"which of: {', '.join(SCENARIOS)}")
    args = parser.parse_args()
    results: dict[str, object] = {}
    for name in args.scenarios or SCENARIOS:
        result = run(name, args.seed)
        results[name] = result
        if args.output is not None:
            args.output.write_text(json.dumps({"seed": args.seed, "date": time.strftime("%Y-%m-%d"), "runs": results}))
    return 0 if all(isinstance(each, dict) and not each["broken"] for each in results.values()) else 1


def run(name: str, seed: int) -> dict[str, object]:
    """One scenario in a house of its own."""
    began, rows, broken, canary = time.monotonic(), [], "", Canary()
    house = House.build()
    try:
        furnish(house)
        house.podman("run", "--rm", house.image, "true")
        for row in SCENARIOS[name](house, canary, random.Random(seed)):
            rows.append(row)
            print(line(name, row), flush=True)
    except (AssertionError, OSError) as error:
        traceback.print_exc()
        broken = (str(error).splitlines() or [type(error).__name__])[0][:200]
        print(f"{name}: BROKEN: {broken}", flush=True)
    finally:
        house.destroy()
        canary.close()
    return {
        "rows": rows,
        "broken": broken,
        "forbidden": len(canary.hits),
        "allowed": canary.answered,
        "seconds": round(time.monotonic() - began),
    }


def line(name: str, row: Row) -> str:
    """One row for people."""
    after = "" if row.recovery is None else f"works again after {row.recovery:.2f} s"
    return f"{name:<11} {row.what:<46} {row.state:<11} {row.times:>4} × {after}"


if __name__ == "__main__":
    sys.exit(main())
