"""What the live verbs make of a state: the next state, and how to get there. Decisions only; no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from . import dnsmasq
from .model import ASK, BYPASS, OPEN_MODES, QUARANTINE, UP, Model, taught_set, unique
from .ruleset import FAMILIES, LEARNED_MAX, learned_set
from .state import State
from .targets import WEB, Target

T = TypeVar("T")

_ELEMENTS_MAX = 2000
"""Elements of one transaction: a netlink message has to fit into net.core.wmem_max, 208 KiB by default."""


@dataclass(frozen=True)
class Step:
    """A change of policy.

    Attributes:
        state: what follows; its generation is new.
        restrictive: something closes: dnsmasq first, and answers under way become worthless before sets are cleaned.
        restart: the running dnsmasq cannot be told by SIGHUP.
        forget: lines whose taught addresses go; None stands for the names without a line.
        forget_all: everything that is not taught by a line goes as well (the end of an open mode).
        notes: what is worth saying.
    """

    state: State
    restrictive: bool
    restart: bool = False
    forget: frozenset[str | None] = frozenset()
    forget_all: bool = False
    notes: tuple[str, ...] = field(default=())


def allow(state: State, targets: Sequence[Target], until: float | None = None) -> Step:
    """Allow more, and take back denials of exactly these targets.

    Args:
        until: seconds since the epoch, for targets that are not allowed for good; None: for good.
    """
    passing = {target: end for target, end in state.passing if target not in targets}
    if until is not None:
        lasting = {*state.base, *state.lasting()}
        passing |= {target: until for target in targets if target not in lasting}
    state = replace(state, passing=tuple(passing.items()))
    model = replace(
        state.model,
        allowed=unique([*state.model.allowed, *targets]),
        denied=tuple(target for target in state.model.denied if target not in targets),
    )
    notes = [
        f"{name} stays denied: a wider denial covers it" for name in targets if name.is_name and model.denies(name)
    ]
    grown = _with_model(state, model)
    known = {name: ports for name, ports in state.lines.items() if name not in state.fresh}
    restart = not dnsmasq.suffices(known, model)
    return Step(_settled(grown, restart), restrictive=False, restart=restart, notes=tuple(notes))


def deny(state: State, targets: Sequence[Target]) -> Step:
    """Deny, and take back what was allowed live of exactly these targets."""
    model = replace(
        state.model,
        allowed=tuple(target for target in state.model.allowed if target not in targets or target in state.base),
        denied=unique([*state.model.denied, *targets]),
        dns_epoch=state.model.dns_epoch + 1,
    )
    state = _without_passing(state, targets)
    names = [target for target in targets if target.is_name]
    known = [name for name in state.lines if name not in state.fresh]
    forget: set[str | None] = set()
    for target in names:
        forget |= dnsmasq.touched(target, state.lines) | dnsmasq.touched(target, known)
    if any(target.ports != WEB for target in names):  # the lines themselves must change: they still teach those ports
        lines = dnsmasq.lines(model)
        after = replace(state, model=replace(model, taught=tuple(lines)), lines=lines)
        return Step(_settled(after, True), restrictive=True, restart=True, forget=frozenset(forget))
    return Step(_settled(_with_model(state, model), False), restrictive=True, forget=frozenset(forget))


def forget(state: State, targets: Sequence[Target]) -> Step:
    """Take back exactly these live allowances and denials; every open connection is judged again."""
    model = replace(
        state.model,
        allowed=tuple(target for target in state.model.allowed if target not in targets or target in state.base),
        denied=tuple(target for target in state.model.denied if target not in targets),
        epoch=state.model.epoch + 1,
        dns_epoch=state.model.dns_epoch + 1,
    )
    state = _without_passing(state, targets)
    lines = dnsmasq.lines(model)
    gone: set[str | None] = {name for name, ports in state.lines.items() if lines.get(name) != ports}
    for denial in (target for target in targets if target.is_name):
        gone |= dnsmasq.touched(denial, [name for name in state.lines if name not in state.fresh])
    after = replace(state, model=replace(model, taught=tuple(lines)), lines=lines)
    return Step(_settled(after, True), restrictive=True, restart=True, forget=frozenset(gone))


def expired(state: State, now: float) -> list[Target]:
    """What was allowed for a time that is over at `now` (seconds since the epoch)."""
    return [target for target, until in state.passing if until <= now]


def _without_passing(state: State, targets: Sequence[Target]) -> State:
    return replace(state, passing=tuple(entry for entry in state.passing if entry[0] not in targets))


def refresh(state: State) -> Step:
    """The same policy again, for names that are resolved statically."""
    return Step(_settled(state, False), restrictive=False)


def set_mode(state: State, mode: str, until: float | None = None) -> Step:
    """Change the mode.

    Going up takes away what names taught while every name resolved; whatever is not attributed to an allowed name goes.
    """
    old = state.model.mode
    model = replace(state.model, mode=mode)
    closing = mode in (UP, ASK, QUARANTINE) and old in OPEN_MODES
    if closing:
        model = replace(model, dns_epoch=model.dns_epoch + 1)
    restart = mode in OPEN_MODES and bool(state.fresh)  # so that what allowed names teach can be told from the rest
    after = replace(state, model=model, until=until if mode in (BYPASS, ASK) else None)
    return Step(_settled(after, restart), restrictive=closing, restart=restart, forget_all=closing)


def reset(state: State) -> Step:
    """Back to the profiles: nothing allowed or denied live; every open connection is judged again."""
    model = replace(
        state.model,
        allowed=state.base,
        denied=(),
        mode=UP,
        epoch=state.model.epoch + 1,
        dns_epoch=state.model.dns_epoch + 1,
    )
    lines = dnsmasq.lines(model)
    after = replace(state, model=replace(model, taught=tuple(lines)), lines=lines, until=None, passing=())
    gone = frozenset[str | None]([None, *(name for name in state.lines if name not in lines)])
    return Step(_settled(after, True), restrictive=True, restart=True, forget=gone, forget_all=True)


def _with_model(state: State, model: Model) -> State:
    """The state with another policy; lines that exist stay, so that their sets do."""
    wanted = dnsmasq.lines(model)
    lines = dict(state.lines)
    fresh = set(state.fresh)
    for name, ports in wanted.items():
        merged = unique_ports([*lines.get(name, ()), *ports])
        if merged != lines.get(name):
            fresh.add(name)
            lines[name] = merged
    return replace(state, model=replace(model, taught=tuple(lines)), lines=lines, fresh=tuple(sorted(fresh)))


def unique_ports(ports: Iterable[T]) -> tuple[T, ...]:
    """Without doubles, in order."""
    return tuple(dict.fromkeys(ports))


def _settled(state: State, restart: bool) -> State:
    return replace(state, generation=state.generation + 1, fresh=() if restart else state.fresh)


def cleaning(step: Step, old: State, observed: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The commands that take taught addresses away, given what the sets hold (the form of `firewall.observe`).

    An address stays when a line that is not forgotten taught it too. What goes is also put into the set `cut`: its open
    connections lose their shortcut and are judged by the rules again.

    Returns:
        Commands that are transactions of their own (the kernel limits the size of one for ordinary users), and those
        that belong to the last transaction.
    """
    if not step.forget and not step.forget_all:
        return [], []
    sets = observed["sets"]

    def held(name: str) -> set[str]:
        return set(sets[name]["elem"]) if name in sets else set()

    single: list[str] = []
    last: list[str] = []
    everyone: list[str | None] = [None, *old.lines]
    forgotten = set(step.forget) | ({None} if step.forget_all else set())
    # Two names may share an address (a content network): an address goes only when every line that taught it is
    # forgotten. `None` is the line of all names that were allowed live, whose addresses cannot be told apart.
    for family in FAMILIES:
        keep: set[str] = set()
        for line in everyone:
            if line not in forgotten:
                keep |= held(taught_set(line, family))
        learned = [learned_set(ports, family, generation) for ports in old.model.name_groups for generation in "ab"]
        if step.forget_all:
            gone = set().union(*(held(name) for name in learned)) - keep
        else:
            gone = set().union(*(held(taught_set(line, family)) for line in forgotten)) - keep
        kept = {target.value for target in step.state.model.resolved}
        gone |= {target.value for target in old.model.resolved if (":" in target.value) == (family == 6)} - kept
        single += _elements("add", f"cut{family}", gone - held(f"cut{family}"))
        for name in learned:
            single += _elements("delete", name, held(name) & gone)
        last += [f"flush set inet terok {taught_set(line, family)}" for line in everyone if line in forgotten]
    return single, last


def crowded(observed: Mapping[str, Any], single: Sequence[str]) -> bool:
    """True when the sets `cut` cannot take what `single` (see `cleaning`) would add to them."""
    added = sum(command.count(",") + 1 for command in single if command.startswith("add element inet terok cut"))
    held = max(len(observed["sets"].get(f"cut{family}", {"elem": []})["elem"]) for family in FAMILIES)
    return held + added > LEARNED_MAX


def judged_anew(step: Step, single: Sequence[str], last: Sequence[str]) -> tuple[Step, list[str], list[str]]:
    """The same change by a new epoch: every open connection is judged again, so no address needs to be in `cut`."""
    model = replace(step.state.model, epoch=step.state.model.epoch + 1)
    kept = [command for command in single if not command.startswith("add element inet terok cut")]
    emptied = [f"flush set inet terok cut{family}" for family in FAMILIES]
    return replace(step, state=replace(step.state, model=model)), kept, [*last, *emptied]


def _elements(verb: str, name: str, elements: set[str]) -> list[str]:
    listed = sorted(elements)
    parts = [listed[start : start + _ELEMENTS_MAX] for start in range(0, len(listed), _ELEMENTS_MAX)]
    return [f"{verb} element inet terok {name} {{ {', '.join(part)} }}" for part in parts]
