"""A container's life with every service, against the same container without terok."""

from __future__ import annotations

import json
import shlex
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.kit import Figure, Median, interleaved, pss, spread, timed
from terok_host.supervisor import record
from tests.lab import leaks
from tests.lab.house import House
from tests.lab.scope import furnish
from tests.lab.wakeups import woken

ROUNDS = 15
IDLE_SECONDS = 5.0
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
    """The podman flags of a container with every service in the airlock: vault, signer, gate, relay, names."""
    furnish(house)
    done = house.terok("prepare", NAME, "--scope", "work", "--profiles", "lab", "--network", "airlock", "--json")
    flags: list[str] = json.loads(done.stdout)
    return flags


def remove(house: House, name: str) -> None:
    house.podman("rm", "--force", "--time", "0", name)


def measure(house: House) -> list[Figure]:
    """Every figure of a container's life; plain is Podman alone with its default network."""
    ours = prepared(house)
    plain = ["--name", PLAIN]
    return [
        *start(house, ours, plain),
        *whole(house, ours, plain),
        *stop(house, ours, plain),
        *hooks(house, ours),
        *first_answer(house, ours),
        *commands(house),
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


def ratio(what: str, medians: dict[str, Median], budget: float) -> Figure:
    """Ours to plain, with the medians beside it."""
    mine, theirs = medians["ours"], medians["plain"]
    detail = f"{mine * 1000:.0f} ms to {theirs * 1000:.0f} ms, medians of {ROUNDS}"
    return Figure(what, mine / theirs, "×", budget, detail=detail, spread=spread(mine, theirs))


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
            1.25,
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

    took: dict[str, list[float]] = {"plain": [], "ours": []}
    for _ in range(ROUNDS):
        took["plain"].append(one(plain, PLAIN))
        took["ours"].append(one(ours, NAME))
    # Podman looks in steps whether the container has ended: a median would jump between two of them, a mean does not
    mine, theirs = (statistics.fmean(took[name]) for name in ("ours", "plain"))
    detail = f"{mine * 1000:.0f} ms to {theirs * 1000:.0f} ms, means of {ROUNDS}"
    return [
        Figure("podman stop -t 0", mine / theirs, "×", 1.2, detail=detail),
        Figure("something of ours left after the stop, at most", max(late) * 1000, "ms", 50),
    ]


@contextmanager
def rewritten(house: House, change: Callable[[dict[str, Any], str], None]) -> Iterator[None]:
    """The hooks' descriptors changed for a while; `change` gets the hook and its stage."""
    originals = {path: path.read_text() for path in Path(house.layout.hooks).glob("*.json")}
    for path, text in originals.items():
        descriptor = json.loads(text)
        change(descriptor["hook"], descriptor["stages"][0])
        path.write_text(json.dumps(descriptor))
    try:
        yield
    finally:
        for path, text in originals.items():
            path.write_text(text)


def hooks(house: House, ours: list[str]) -> list[Figure]:
    """The hooks' own time: a wrapper notes when each begins and ends; then the start's steps, in further runs."""
    log = house.base / "hook-times"

    def wrap(hook: dict[str, Any], stage: str) -> None:
        wrapper = house.base / f"hook-{stage}"
        command = shlex.join([hook["path"], *hook["args"][1:]])
        wrapper.write_text(WRAPPER.format(command=command, stage=stage, log=log))
        wrapper.chmod(0o755)
        hook.update(path=str(wrapper), args=[wrapper.name])

    empty = statistics.median(nothing(house) for _ in range(ROUNDS))
    with rewritten(house, wrap):
        for _ in range(ROUNDS):
            house.podman("run", "--detach", *ours, house.image, *SLEEP)
            remove(house, NAME)
    times: dict[str, list[float]] = {}
    for entry in log.read_text().splitlines():
        stage, nanoseconds = entry.split()
        times.setdefault(stage, []).append(int(nanoseconds) / 1e6)
    medians = {stage: statistics.median(each) - empty for stage, each in times.items()}
    detail = ", ".join(f"{stage} {value:.0f} ms" for stage, value in sorted(medians.items()))
    total = medians["createRuntime"]
    return [
        Figure(
            "hook at start (createRuntime)",
            total,
            "ms",
            30,
            detail=detail,
            spread=Median.of(times["createRuntime"]).spread,
            series=steps(house, ours, total),
        )
    ]


def steps(house: House, ours: list[str], total: float) -> tuple[tuple[str, float, float], ...]:
    """What each process of a start does when, as medians: `process: step`, from and to in milliseconds.

    The first step is what the trace cannot see, the interpreter and the end: the rest of the hook's `total`.
    """
    log = house.base / "steps"

    def trace(hook: dict[str, Any], stage: str) -> None:
        if stage == "createRuntime":
            hook["args"].append(str(log))

    ends: dict[tuple[str, str], list[float]] = {}
    with rewritten(house, trace):
        for _ in range(ROUNDS):
            log.unlink(missing_ok=True)
            house.podman("run", "--detach", *ours, house.image, *SLEEP)
            remove(house, NAME)
            for key, at in marks(log.read_text()).items():
                ends.setdefault(key, []).append(at)
    moments = sorted((statistics.median(values), *key) for key, values in ends.items())
    before = max(0.0, total - moments[-1][0])
    began = {"hook": before}
    rows = [("hook: interpreter, first imports", 0.0, before)]
    for at, who, step in moments:
        end = before + at
        rows.append((f"{who}: {step}", began.get(who, end), end))
        began[who] = end
    return tuple(row for row in rows if row[2] > row[1])


def marks(text: str) -> dict[tuple[str, str], float]:
    """A trace (`supervisor/ground/log.py`) as process and step with milliseconds since its first line."""
    rows = sorted(
        (int(clock), pid, step) for clock, _, pid, step in (line.split(None, 3) for line in text.splitlines())
    )
    names = {rows[0][1]: "hook"}
    for _, pid, step in rows:
        who, colon, _ = step.partition(": ")
        names.setdefault(pid, who if colon else "supervisor")
    return {(names[pid], step.removeprefix(f"{names[pid]}: ")): (clock - rows[0][0]) / 1e6 for clock, pid, step in rows}


def first_answer(house: House, ours: list[str]) -> list[Figure]:
    """From `podman run` until a client in the container has the vault's first answer."""

    def one() -> float:
        script = "curl -s -o /dev/null http://127.0.0.1:9419/ && echo answered; sleep 1000 & wait"
        began = time.perf_counter()
        command = ["podman", "run", *ours, house.image, "sh", "-c", f"trap exit TERM; {script}"]
        with subprocess.Popen(command, env=house.env, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            assert running.stdout.readline() == "answered\n"
            took = time.perf_counter() - began
            remove(house, NAME)
            running.communicate(timeout=30)
        return took * 1000

    took = Median.of([one() for _ in range(ROUNDS)])
    detail = f"median of {ROUNDS}"
    return [Figure("podman run to the first vault answer", took, "ms", 150, detail=detail, spread=took.spread)]


def nothing(house: House) -> float:
    """Milliseconds that the wrapper itself adds."""
    log, wrapper = house.base / "empty-times", house.base / "hook-empty"
    wrapper.write_text(WRAPPER.format(command=":", stage="empty", log=log))
    wrapper.chmod(0o755)
    house.run([str(wrapper)])
    return int(log.read_text().split()[-1]) / 1e6


def idle(house: House, ours: list[str]) -> list[Figure]:
    """Processes and memory of an idle container, and after its vault and signer were used."""
    house.podman("run", "--detach", *ours, house.image, *SLEEP)

    def pids() -> dict[str, int]:
        known = record.read(house.bundle(NAME).record)
        return {name: process.pid for name, process in (known.processes() if known else ())}

    def seen() -> dict[str, float]:
        return {name: pss(pid) for name, pid in pids().items()}

    try:
        quiet = seen()
        calls = woken(list(pids().values()), seconds=IDLE_SECONDS, log=house.base / "calls")
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
        Figure("system calls of an idle container", len(calls), "", 0, detail=f"in {IDLE_SECONDS:g} s, with dnsmasq"),
        Figure(
            "memory of an idle container (PSS)", sum(own.values()), "MB", 12, detail=listed(quiet), series=bars(quiet)
        ),
        Figure(
            "memory of vault and signer in use (PSS)",
            sum(services.values()),
            "MB",
            30,
            detail=listed(services),
            series=bars(used),
        ),
    ]


def bars(values: dict[str, float]) -> tuple[tuple[str, float, float], ...]:
    """Values to be drawn from zero."""
    return tuple((name, 0.0, value) for name, value in values.items())
