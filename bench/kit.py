"""What the measurements share: medians of interleaved runs with their spread, and a figure with its budget."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SPREAD = 0.1
"""What a figure may move by without a word, when its own spread is not known."""


class Median(float):
    """The median of several runs.

    Attributes:
        spread: half the distance between the quartiles, as a part of the median.
    """

    spread: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Median:
        """The median of at least one value."""
        median = cls(statistics.median(values))
        low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else (median, median, median)
        median.spread = (high - low) / 2 / median if median else 0.0
        return median


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    what: its name, which is the same in every run.
    value, unit: what came out; "×" is a ratio to what people would use instead.
    budget: what the design allows; None when it sets none.
    at_least: the budget is a lower bound.
    detail: the absolute values behind a ratio, the number of runs.
    spread: by what part of itself it differs from run to run.
    series: its parts, to be drawn: label, beginning and end, in the figure's unit.
    """

    what: str
    value: float
    unit: str
    budget: float | None
    at_least: bool = False
    detail: str = ""
    spread: float = SPREAD
    series: tuple[tuple[str, float, float], ...] = ()

    @property
    def kept(self) -> bool:
        """Whether the budget was kept."""
        return self.budget is None or (self.value >= self.budget if self.at_least else self.value <= self.budget)


def spread(*medians: float) -> float:
    """The spread of a ratio of these: the parts are independent."""
    return math.hypot(*(value.spread if isinstance(value, Median) else SPREAD for value in medians))


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` took."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def interleaved(rounds: int, contenders: Mapping[str, Callable[[], float]]) -> dict[str, Median]:
    """The median of each contender's results, measured in turns so that what disturbs one disturbs all.

    Args:
        rounds: how often each is measured, after one round that does not count.
        contenders: name → one measurement, returning its result.
    """
    results: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, measure in contenders.items():
            value = measure()
            if number:
                results[name].append(value)
    return {name: Median.of(values) for name, values in results.items()}


def family(pid: int) -> list[int]:
    """A process and everything below it."""
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in below for each in family(int(child)))]


def memory(what: str, *pids: int, detail: str = "") -> Figure:
    """Processes' memory: their PSS, which only root may read where they are not dumpable (proc_pid_smaps(5))."""
    try:
        return Figure(f"{what} (PSS)", sum(map(pss, pids)), "MB", None, detail=detail)
    except PermissionError:
        return Figure(f"{what} (RSS, shared pages whole)", sum(map(_rss, pids)), "MB", None, detail=detail)


def held(pid: int) -> float:
    """Megabytes of a process: its PSS, or its resident size where that may not be read."""
    try:
        return pss(pid)
    except PermissionError:
        return _rss(pid)


def _rss(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def pss(pid: int) -> float:
    """Megabytes of a process's proportional set size (proc_pid_smaps(5))."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise LookupError(f"no Pss of process {pid}")
