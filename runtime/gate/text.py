"""What `terok gate` prints for people. Names and patches come from containers: no control character is printed."""

from __future__ import annotations

import time

from ...sidecars.gate.policy import KINDS
from ..kit.table import plain, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypedDict

    from ...sidecars.gate.config import GateConfig
    from ...sidecars.gate.forge.sync import Step
    from ...sidecars.gate.refs import Kept
    from ...sidecars.gate.state import Proposal
    from ..kit.env import Output

    class Summary(TypedDict):
        """One scope's gate; `synced` is a Unix time."""

        scope: str
        url: str
        mode: str
        proposals: int
        synced: float | None
        error: str | None


def plain_lines(text: str) -> str:
    """Several lines, tabs kept."""
    return "\n".join("\t".join(plain(cell) for cell in line.split("\t")) for line in text.split("\n"))


def ago(moment: float | None, now: float) -> str:
    """How long ago, in one unit."""
    if not moment:
        return "never"
    seconds = max(0, int(now - moment))
    for name, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {name} ago"
    return f"{seconds} s ago"


def summaries(rows: Sequence[Summary], out: Output, now: float) -> str:
    """Every scope with a gate."""
    if not rows:
        return ""
    head = ("SCOPE", "MODE", "PROPOSALS", "SYNCED", "UPSTREAM")
    body = ((row["scope"], row["mode"], str(row["proposals"]), ago(row["synced"], now), row["url"]) for row in rows)
    return table([head, *body], out)


def scope(summary: Summary, everything: dict[str, str], proposals: list[Proposal], out: Output, now: float) -> str:
    """One scope: its refs and what waits."""
    lines = [f"{summary['scope']}: {plain(summary['url'])}, {summary['mode']}, synced {ago(summary['synced'], now)}"]
    if summary["error"]:
        lines.append(f"last synchronisation failed: {plain(summary['error'])}")
    shown = [(ref, oid[:12]) for ref, oid in sorted(everything.items()) if not ref.startswith("refs/terok/")]
    lines += ["", table(shown, out, header=False)] if shown else []
    waiting = [
        (str(one.number), one.kind, one.ref, one.who or one.source, one.new[:12], ago(one.created, now))
        for one in proposals
    ]
    if waiting:
        lines += ["", table([("PROPOSAL", "KIND", "REF", "BY", "TIP", "MADE"), *waiting], out)]
    return "\n".join(lines)


def settings(name: str, config: GateConfig) -> str:
    """A gate's configuration."""
    fields = [(key, str(value)) for key, value in config.to_dict().items() if key not in ("schema", "policy", "limits")]
    limits = [(f"limits.{key}", str(value)) for key, value in config.changed_limits().items()]
    return f"{name}\n{table([(f'  {key}', value) for key, value in [*fields, *limits]], header=False)}"


def policy(config: GateConfig) -> str:
    """A scope's ref policy."""
    rows = [(kind, " ".join(config.policy.patterns(kind)) or "(nothing)") for kind in KINDS]
    guard = f"tags and {config.default_branch}" if config.policy.protect else "nothing"
    return table([*rows, ("protected", guard)], header=False)


def proposal(out: Output, shown: Proposal, commits: str, patch: str) -> str:
    """A proposal for review."""
    by = shown.who or shown.source
    lines = [out.paint(plain(f"proposal {shown.number}: {shown.kind} {shown.ref} by {by}"), "bold")]
    lines.append(f"{shown.old[:12]} -> {shown.new[:12]}")
    lines += [plain_lines(commits)] if commits else []
    colours = {"+": "good", "-": "bad", "@": "dim"}
    body = []
    for line in plain_lines(patch).split("\n"):
        colour = colours.get(line[:1])
        body.append(out.paint(line, colour) if colour else line)
    return "\n".join([*lines, "", *body])


def steps(taken: Sequence[Step], out: Output) -> str:
    """What a synchronisation did."""
    return table(
        (
            (
                step.kind,
                step.ref,
                f"{step.old[:12]} -> {step.new[:12]}",
                "waits for approval" if step.waits else "done",
            )
            for step in taken
        ),
        out,
        header=False,
    )


def lost(tips: Sequence[Kept], out: Output) -> str:
    """Tips that can be restored."""
    if not tips:
        return ""
    body = ((tip.identity, tip.ref, tip.tip[:12], _stamp(tip.lost)) for tip in tips)
    return table([("TIP", "REF", "COMMIT", "LOST"), *body], out)


def _stamp(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def log(entries: Sequence[Mapping[str, object]], out: Output) -> str:
    """Log entries, one line each."""
    rows = []
    for entry in entries:
        what = " ".join(str(entry[key]) for key in ("number", "kind", "ref") if key in entry)
        tip = str(entry.get("new", ""))[:12]
        reason = f": {entry['reason']}" if entry.get("reason") else ""
        who = entry.get("container", "operator" if entry["event"] != "sync" else "upstream")
        rows.append(
            (str(entry["time"])[:19], str(entry["event"]), str(who), f"{what} {tip} {entry.get('verdict', '')}{reason}")
        )
    return table(rows, out, header=False)
