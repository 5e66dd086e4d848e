"""Whether the hundredth container costs what the first did: start, memory, stop."""

from __future__ import annotations

import json
import statistics

from bench.kit import Figure, pss, timed
from terok_host.supervisor import record
from tests.lab.house import House
from tests.lab.scope import PROFILE, SCOPE, furnish

COUNT, SAMPLE = 100, 10
ENDS = (slice(0, SAMPLE), slice(COUNT - SAMPLE, COUNT))
SLEEP = ("sleep", "1000")


def start(house: House, flags: list[str]) -> float:
    """Seconds of `podman run --detach`."""
    return timed(lambda: house.podman("run", "--detach", *flags, house.image, *SLEEP))


def measure(house: House) -> list[Figure]:
    """Start a hundred containers with every service, beside a plain one now and then, and stop them all."""
    furnish(house)
    names = [f"many-{number}" for number in range(COUNT)]
    ours: list[float] = []
    plain: list[float] = []
    memory: list[float] = []
    try:
        for name in names:
            wiring = ("--scope", SCOPE, "--profiles", PROFILE)
            flags = json.loads(house.terok("prepare", name, *wiring, "--json").stdout)
            ours.append(start(house, flags))
            # the machine gets slower under a hundred containers of any kind: a plain one tells by how much
            plain.append(start(house, ["--name", "plain", "--network", flags[flags.index("--network") + 1]]))
            house.podman("rm", "--force", "--time", "0", "plain")
        for name in names:
            known = record.read(house.bundle(name).record)
            memory.append(sum(pss(process.pid) for _, process in (known.processes() if known else ())))
    finally:
        house.podman("rm", "--force", "--time", "0", "--ignore", "plain", *names, timeout=300)
        house.terok("cleanup", *names, timeout=300)
    first, last = (statistics.median(ours[part]) / statistics.median(plain[part]) for part in ENDS)
    times = ", ".join(f"{statistics.median(ours[part]) * 1000:.0f} ms" for part in ENDS)
    return [
        Figure("start of the last ten of a hundred, to the first ten", last / first, "×", 1.15, detail=times),
        Figure("memory of each of a hundred idle containers (PSS)", statistics.median(memory), "MB", 16),
    ]
