"""A container's life with every service, against the same container without terok."""

from __future__ import annotations

import json
import shlex
import statistics
from pathlib import Path

from bench.kit import Figure, interleaved, pss, timed
from terok_host.supervisor import record
from tests.lab import leaks
from tests.lab.house import House
from tests.lab.scope import furnish

ROUNDS = 15
NAME, PLAIN = "bench", "plain"
SLEEP = ("sleep", "1000")
WRAPPER = """\
#!/bin/sh
# the time of one hook, from before its interpreter is started until it has ended
began=$(date +%s%N)
{command}
code=$?
ended=$(date +%s%N)
echo "{stage} $((ended - began))" >>{log}
exit $code
"""


def prepared(house: House) -> list[str]:
    """The podman flags of a container with every service: vault, signer, gate, firewall."""
    furnish(house)
    done = house.terok("prepare", NAME, "--scope", "work", "--profiles", "lab", "--json")
    flags: list[str] = json.loads(done.stdout)
    return flags


def remove(house: House, name: str) -> None:
    house.podman("rm", "--force", "--time", "0", name)


def measure(house: House) -> list[Figure]:
    """Every figure of a container's life."""
    ours = prepared(house)
    plain = ["--name", PLAIN, "--network", ours[ours.index("--network") + 1]]
    return [
        *commands(house),
        *start(house, ours, plain),
        *whole(house, ours, plain),
        *stop(house, ours, plain),
        *hooks(house, ours),
        *idle(house, ours),
    ]


def commands(house: House) -> list[Figure]:
    """What the operator's own commands take."""
    medians = interleaved(
        ROUNDS,
        {
            "prepare": lambda: timed(lambda: house.terok("prepare", NAME, "--scope", "work", "--profiles", "lab")),
            "help": lambda: timed(lambda: house.terok("--help")),
        },
    )
    return [
        Figure("terok prepare", medians["prepare"] * 1000, "ms", 100),
        Figure("terok --help", medians["help"] * 1000, "ms", 80),
    ]


def ratio(what: str, medians: dict[str, float], budget: float) -> Figure:
    """Ours to plain, with the medians beside it."""
    detail = f"{medians['ours'] * 1000:.0f} ms to {medians['plain'] * 1000:.0f} ms, medians of {ROUNDS}"
    return Figure(what, medians["ours"] / medians["plain"], "×", budget, detail=detail)


def start(house: House, ours: list[str], plain: list[str]) -> list[Figure]:
    """`podman run --detach`."""

    def one(flags: list[str], name: str) -> float:
        took = timed(lambda: house.podman("run", "--detach", *flags, house.image, *SLEEP))
        remove(house, name)
        return took

    medians = interleaved(ROUNDS, {"plain": lambda: one(plain, PLAIN), "ours": lambda: one(ours, NAME)})
    return [ratio("podman run -d", medians, 1.25)]


def whole(house: House, ours: list[str], plain: list[str]) -> list[Figure]:
    """`podman run --rm IMAGE true`: start, end and removal."""

    def one(flags: list[str]) -> float:
        return timed(lambda: house.podman("run", "--rm", *flags, house.image, "true"))

    return [
        ratio(
            "podman run --rm IMAGE true",
            interleaved(ROUNDS, {"plain": lambda: one(plain), "ours": lambda: one(ours)}),
            1.4,
        )
    ]


def stop(house: House, ours: list[str], plain: list[str]) -> list[Figure]:
    """`podman stop --time 0`, and how long something of ours is left after it."""
    before = leaks.take(house, bundles=False)
    late: list[float] = []

    def one(flags: list[str], name: str) -> float:
        house.podman("run", "--detach", *flags, house.image, *SLEEP)
        took = timed(lambda: house.podman("stop", "--time", "0", name))
        if name == NAME:
            late.append(timed(lambda: leaks.left(house, before, within=5, bundles=False)))
        remove(house, name)
        return took

    medians = interleaved(ROUNDS, {"plain": lambda: one(plain, PLAIN), "ours": lambda: one(ours, NAME)})
    return [
        ratio("podman stop -t 0", medians, 1.5),
        Figure("something of ours left after the stop, at most", max(late) * 1000, "ms", 100),
    ]


def hooks(house: House, ours: list[str]) -> list[Figure]:
    """The hooks' own time: a wrapper in the descriptors notes when each begins and ends."""
    log = house.base / "hook-times"
    originals = {path: path.read_text() for path in Path(house.layout.hooks).glob("*.json")}
    for path, text in originals.items():
        descriptor = json.loads(text)
        hook, (stage,) = descriptor["hook"], descriptor["stages"]
        wrapper = house.base / f"hook-{stage}"
        command = shlex.join([hook["path"], *hook["args"][1:]])
        wrapper.write_text(WRAPPER.format(command=command, stage=stage, log=log))
        wrapper.chmod(0o755)
        descriptor["hook"] = {"path": str(wrapper), "args": [wrapper.name]}
        path.write_text(json.dumps(descriptor))
    empty = statistics.median(nothing(house) for _ in range(ROUNDS))
    try:
        for _ in range(ROUNDS):
            house.podman("run", "--detach", *ours, house.image, *SLEEP)
            remove(house, NAME)
    finally:
        for path, text in originals.items():
            path.write_text(text)
    times: dict[str, list[float]] = {}
    for entry in log.read_text().splitlines():
        stage, nanoseconds = entry.split()
        times.setdefault(stage, []).append(int(nanoseconds) / 1e6)
    medians = {stage: statistics.median(each) - empty for stage, each in times.items()}
    detail = ", ".join(f"{stage} {value:.0f} ms" for stage, value in sorted(medians.items()))
    return [Figure("hook at start (createRuntime)", medians["createRuntime"], "ms", 40, detail=detail)]


def nothing(house: House) -> float:
    """Milliseconds that the wrapper itself adds."""
    log, wrapper = house.base / "empty-times", house.base / "hook-empty"
    wrapper.write_text(WRAPPER.format(command=":", stage="empty", log=log))
    wrapper.chmod(0o755)
    house.run([str(wrapper)])
    return int(log.read_text().split()[-1]) / 1e6


def idle(house: House, ours: list[str]) -> list[Figure]:
    """Processes and memory of a container that nobody uses, and after its vault and signer were used."""
    house.podman("run", "--detach", *ours, house.image, *SLEEP)

    def seen() -> dict[str, float]:
        known = record.read(house.bundle(NAME).record)
        return {name: pss(process.pid) for name, process in (known.processes() if known else ())}

    try:
        quiet = seen()
        house.podman("exec", NAME, "sh", "-c", "ssh-add -l; curl -s -o /dev/null http://127.0.0.1:9419/", check=False)
        used = seen()
    finally:
        remove(house, NAME)
    own = {name: value for name, value in quiet.items() if name != "dnsmasq"}
    services = {name: value for name, value in used.items() if name in ("vault", "ssh")}

    def listed(values: dict[str, float]) -> str:
        return ", ".join(f"{name} {value:.1f}" for name, value in values.items())

    return [
        Figure("processes of an idle container besides dnsmasq", len(own), "", 2, detail=", ".join(own)),
        Figure("memory of an idle container (PSS)", sum(quiet.values()), "MB", 16, detail=listed(quiet)),
        Figure("memory of vault and signer in use (PSS)", sum(services.values()), "MB", 40, detail=listed(services)),
    ]
