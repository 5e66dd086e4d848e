"""How the mirror follows upstream: what is new or moved forward is taken over, the rest waits for the operator.

A ref of the view is compared with what upstream has now and what it had when it was last asked. So a branch that a
container moved is told from one that upstream moved, and a rewritten or deleted branch never takes work away.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from ....supervisor.ground.errors import TerokError
from .. import refs, state
from ..config import KEEP_DAYS, GateConfig
from . import remote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..site import Site


class Step(NamedTuple):
    """What a synchronisation does to one ref of the view.

    kind: create, update (fast-forward), force or delete.
    waits: it becomes a proposal of upstream's.
    """

    ref: str
    kind: str
    old: str
    new: str
    waits: bool


def decide(
    view: dict[str, str], before: dict[str, str], after: dict[str, str], forward: Callable[[str, str], bool]
) -> Iterator[Step]:
    """Compare. Pure but for `forward`.

    Args:
        view: the view's branches and tags.
        before, after: upstream's at the last time and now, by the same names.
        forward: whether the second object is a fast-forward of the first.
    """
    for ref in sorted(view.keys() | after.keys()):
        ours, then, now = view.get(ref, ""), before.get(ref, ""), after.get(ref, "")
        if now == ours or (now == then and ours):
            continue  # the same, or only a container has moved it
        if not ours:
            if now != then:  # a container's deletion waits for approval as long as upstream does not move
                yield Step(ref, "create", refs.zeros(now), now, waits=False)
        elif not now:
            if then:
                yield Step(ref, "delete", ours, refs.zeros(ours), waits=True)
        elif ref.startswith("refs/tags/"):
            yield Step(ref, "force", ours, now, waits=True)
        elif forward(ours, now):
            yield Step(ref, "update", ours, now, waits=False)
        elif ours == then or not forward(now, ours):
            yield Step(ref, "force", ours, now, waits=True)


def synchronise(site: Site, config: GateConfig) -> list[Step]:
    """Fetch from upstream and follow it.

    Returns:
        What was done and what waits.

    Raises:
        TerokError: upstream could not be reached; noted in the state, the mirror is as it was.
    """
    try:
        with remote.access(site, config) as way, state.State(site.home) as kept:
            before = _upstream(refs.read(site.home))
            remote.fetch(site.home, config, way)
            kept.tried = kept.synced = time.time()
            kept.error = ""
            steps = _follow(site, kept, before)
            kept.save()
    except TerokError as error:
        with state.State(site.home) as kept:
            kept.tried, kept.error = time.time(), error.what
            kept.save()
        state.log(site.home, "sync", verdict="failed", reason=error.what)
        raise
    for step in steps:
        fields = {"ref": step.ref, "kind": step.kind, "old": step.old, "new": step.new}
        state.log(site.home, "sync", verdict="proposed" if step.waits else "done", **fields)
    return steps


def _upstream(everything: dict[str, str]) -> dict[str, str]:
    """Upstream's branches and tags as the hidden refs note them."""
    start = len(refs.UPSTREAM)
    return {f"refs/{ref[start:]}": oid for ref, oid in everything.items() if ref.startswith(refs.UPSTREAM)}


def _follow(site: Site, kept: state.State, before: dict[str, str]) -> list[Step]:
    everything = refs.read(site.home)
    after, view = _upstream(everything), refs.visible(everything)
    steps = []
    for step in decide(view, before, after, lambda old, new: refs.is_ancestor(site.home, old, new)):
        change = refs.Change(site.home)
        if not step.waits:
            change.set(step.ref, step.new, step.old)
        elif kept.declined.get(step.ref) == step.new:
            continue
        else:
            known = kept.of(state.UPSTREAM, "", step.ref)
            if known and (known.old, known.new) == (step.old, step.new):
                continue
            kept.propose(state.UPSTREAM, "", step.ref, step.kind, step.old, step.new, change)
        problem = change.commit()
        if not problem:
            steps.append(step)
    _settle(site, kept, view, after, everything)
    refs.forget_old(site.home, everything, KEEP_DAYS)
    return steps


def _settle(
    site: Site, kept: state.State, view: dict[str, str], after: dict[str, str], everything: dict[str, str]
) -> None:
    """Close proposals that upstream's move has answered, and bring the others' idea of upstream up to date."""
    for proposal in list(kept.proposals.values()):
        now = after.get(proposal.ref, "")
        change = refs.Change(site.home)
        if proposal.source == state.UPSTREAM:
            outdated = now == view.get(proposal.ref, "") or (now or refs.zeros(proposal.new)) != proposal.new
        else:
            outdated = (now or refs.zeros(proposal.new)) == proposal.new
        if outdated:
            kept.drop(proposal, change)
            change.commit()
