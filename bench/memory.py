"""Whether the hundredth container costs what the first did: start, memory, stop."""

from __future__ import annotations

import json
import statistics

from bench.kit import Figure, pss, timed
from terok_host.supervisor import record
from tests.lab.house import House
from tests.lab.scope import PROFILE, SCOPE, furnish

COUNT, SAMPLE = 100, 10
STEPS = (1, 10, 50, 100)
"""After so many containers the memory of each is looked at."""
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
    memory: dict[int, float] = {}
    try:
        for number, name in enumerate(names, 1):
            wiring = ("--scope", SCOPE, "--profiles", PROFILE)
            flags = json.loads(house.terok("prepare", name, *wiring, "--json").stdout)
            ours.append(start(house, flags))
            # the machine gets slower under a hundred containers of any kind: a plain one tells by how much
            plain.append(start(house, ["--name", "plain"]))
            house.podman("rm", "--force", "--time", "0", "plain")
            if number in STEPS:
                memory[number] = of_each(house, names[:number])
    finally:
        house.podman("rm", "--force", "--time", "0", "--ignore", "plain", *names, timeout=300)
        house.terok("cleanup", *names, timeout=300)
    first, last = (statistics.median(ours[part]) / statistics.median(plain[part]) for part in ENDS)
    times = ", ".join(f"{statistics.median(ours[part]) * 1000:.0f} ms" for part in ENDS)
    return [
        Figure("start of the last ten of a hundred, to the first ten", last / first, "×", 1.15, detail=times),
        Figure(
            "memory of each of a hundred idle containers (PSS)",
            memory[COUNT],
            "MB",
            12,
            detail="dnsmasq included",
            series=tuple((f"of {number}", 0.0, memory[number]) for number in STEPS),
        ),
    ]


def of_each(house: House, names: list[str]) -> float:
    """Megabytes for each of these containers: supervisor, standby and dnsmasq."""
    records = [record.read(house.bundle(name).record) for name in names]
    processes = [process for known in records if known for _, process in known.processes()]
    return sum(pss(process.pid) for process in processes) / len(names)
