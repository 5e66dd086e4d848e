"""What the operator does with proposals and with tips that were lost. No process that serves a container comes here."""

from __future__ import annotations

from ...supervisor.ground import paste
from ...supervisor.ground.errors import Exit, TerokError
from . import git, refs, state
from .forge import remote
from .forge.landing import kind_between
from .policy import own_prefix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...supervisor.ground.layout import GateHome
    from .config import GateConfig
    from .refs import Kept
    from .site import Site
    from .state import Proposal

DIFF_SECONDS = 120.0


def find(kept: state.State, scope: str, number: int) -> Proposal:
    """An open proposal; TerokError (NOT_FOUND) when there is none of this number."""
    if number not in kept.proposals:
        raise TerokError(
            f"The gate of {scope} has no open proposal {number}; a newer push replaces one under another number.",
            fix=f"terok gate list {paste.quoted(scope)}",
            code=Exit.NOT_FOUND,
        )
    return kept.proposals[number]


def number_of(kept: state.State, scope: str, wanted: str) -> int:
    """The number of the proposal that the operator means: its number, its ref, or its branch's name.

    A ref is also known as `terok gate list` shows it, with bytes that are no UTF-8 written as `\\xNN`.

    Raises:
        TerokError: no open proposal is called so (NOT_FOUND), or several are (USAGE).
    """
    if wanted.isdecimal() and wanted.isascii() and len(wanted) < 10:
        return find(kept, scope, int(wanted)).number
    meant = (wanted, f"refs/heads/{wanted}", f"refs/tags/{wanted}")
    numbers = [number for number, one in kept.proposals.items() if one.ref in meant or refs.shown(one.ref) in meant]
    if len(numbers) != 1:
        several = "several proposals: " + ", ".join(str(number) for number in sorted(numbers))
        raise TerokError(
            f"{refs.shown(wanted)[:100]} is {several if numbers else 'no open proposal'} of {scope}.",
            fix="give its number" if numbers else f"terok gate list {paste.quoted(scope)}",
            code=Exit.USAGE if numbers else Exit.NOT_FOUND,
        )
    return numbers[0]


def approve(site: Site, config: GateConfig, number: int, say: Callable[[str], None]) -> Proposal:
    """Carry a proposal out: push a container's to upstream, let the mirror follow upstream's own.

    Upstream changes the ref only if it still is what it was when the proposal was made.

    Raises:
        TerokError: there is no such proposal, or upstream refused (REFUSED); the proposal stays open then.
    """
    proposal = find(state.State.peek(site.home), site.scope, number)
    if proposal.source != state.UPSTREAM:
        move = remote.Move(proposal.ref, proposal.old, proposal.new)
        with remote.access(site, config) as way:
            verdict = remote.push(site.home, config, way, [move], atomic=False, say=say)
        reason = verdict.get(proposal.ref, "upstream did not answer for this ref")
        if reason:
            state.log(site.home, "approve", number=number, ref=proposal.ref, verdict="refused", reason=reason)
            raise TerokError(
                f"Proposal {number} ({proposal.kind} {proposal.ref}) was not taken: {reason}.",
                fix=f"terok gate sync {paste.quoted(site.scope)}, and have the branch brought up to date when upstream "
                "has moved",
                code=Exit.REFUSED,
            )
    with state.State(site.home) as kept:
        _follow(site.home, kept, proposal)
        kept.save()
    state.log(site.home, "approve", number=number, ref=proposal.ref, new=proposal.new, verdict="done")
    return proposal


def _follow(home: GateHome, kept: state.State, proposal: Proposal) -> None:
    """Bring the mirror to what a proposal said."""
    everything = refs.read(home)
    view, change = everything.get(proposal.ref, ""), refs.Change(home)
    if proposal.source != state.UPSTREAM:
        change.set(refs.upstream_name(proposal.ref), proposal.new)
        if proposal.kind in ("force", "delete") and not refs.is_zero(proposal.old):
            change.keep(proposal.ref, proposal.old)
    elif view:
        change.keep(proposal.ref, view)
    moved_on = kept.of(proposal.source, proposal.who, proposal.ref)
    if moved_on is None or moved_on.number == proposal.number:
        if view or not refs.is_zero(proposal.new):
            change.set(proposal.ref, proposal.new)
        kept.drop(kept.proposals.get(proposal.number), change)
    problem = change.commit()
    if problem:
        raise TerokError(
            f"Upstream took proposal {proposal.number}, but the mirror could not follow: {problem}.",
            fix=f"terok gate sync {paste.quoted(home.scope)}",
        )


def reject(home: GateHome, number: int) -> Proposal:
    """Drop a proposal. A container's own branch goes back to what upstream has; the tip can be restored.

    Raises:
        TerokError: there is no such proposal, or git failed.
    """
    with state.State(home) as kept:
        proposal = find(kept, home.scope, number)
        everything = refs.read(home)
        view, change = everything.get(proposal.ref, ""), refs.Change(home)
        if proposal.source == state.UPSTREAM:
            kept.declined[proposal.ref] = proposal.new
        else:
            if not refs.is_zero(proposal.new):
                change.keep(proposal.ref, proposal.new)
            shown = proposal.source == state.OPERATOR or proposal.ref.startswith(own_prefix(proposal.who))
            theirs = everything.get(refs.upstream_name(proposal.ref), "")
            if shown and view != theirs:
                change.set(proposal.ref, theirs or refs.zeros(view), view or refs.zeros(theirs))
        kept.drop(proposal, change)
        problem = change.commit()
        if problem:
            raise TerokError(f"Could not reject proposal {number}: {problem}.")
        kept.save()
    state.log(home, "reject", number=number, ref=proposal.ref, new=proposal.new, verdict="done")
    return proposal


def choose(kept: list[Kept], scope: str, wanted: str) -> Kept:
    """The lost tip that the operator means: an identity, or a ref or branch whose latest lost tip it is.

    Raises:
        TerokError: there is none (NOT_FOUND).
    """
    names = (wanted, f"refs/heads/{wanted}", f"refs/tags/{wanted}")
    tips = [tip for tip in kept if tip.identity == wanted or tip.ref in names]
    if not tips:
        raise TerokError(
            f"The gate of {scope} has no lost tip of {wanted}.",
            fix=f"terok gate restore {paste.quoted(scope)}",
            code=Exit.NOT_FOUND,
        )
    return tips[-1]


def restore(site: Site, config: GateConfig, wanted: str, say: Callable[[str], None]) -> Kept:
    """Give a ref a tip back that it has lost; what it has now becomes restorable in turn.

    Online, upstream gets it too; in gatekeeping that is a proposal.

    Raises:
        TerokError: there is no such tip, upstream refused, or the ref has moved meanwhile.
    """
    everything = refs.read(site.home)
    lost = choose(refs.kept(everything), site.scope, wanted)
    theirs = everything.get(refs.upstream_name(lost.ref), refs.zeros(lost.tip))
    if config.mode == "online" and theirs != lost.tip:
        with remote.access(site, config) as way:
            verdict = remote.push(
                site.home, config, way, [remote.Move(lost.ref, theirs, lost.tip)], atomic=False, say=say
            )
        reason = verdict.get(lost.ref, "upstream did not answer for this ref")
        if reason:
            raise TerokError(f"Could not restore {lost.ref}: {reason}.", code=Exit.REFUSED)
    with state.State(site.home) as kept:
        change = refs.Change(site.home)
        view = everything.get(lost.ref, "")
        change.set(lost.ref, lost.tip, view or refs.zeros(lost.tip))
        if view and view != lost.tip:
            change.keep(lost.ref, view)
        if config.mode == "online":
            change.set(refs.upstream_name(lost.ref), lost.tip)
        elif theirs != lost.tip:
            kind = kind_between(site.home, theirs, lost.tip)
            kept.propose(state.OPERATOR, "", lost.ref, kind, theirs, lost.tip, change)
        problem = change.commit()
        if problem:
            raise TerokError(f"Could not restore {lost.ref}: {problem}.")
        kept.save()
    state.log(site.home, "restore", ref=lost.ref, new=lost.tip, verdict="done")
    return lost


def base_of(home: GateHome, config: GateConfig, proposal: Proposal) -> str:
    """What a proposal is compared with: the commit where it left upstream; "" when it shares nothing."""
    everything = refs.read(home)
    default = everything.get(config.default_branch, "")
    against = proposal.old if not refs.is_zero(proposal.old) else default
    if refs.is_zero(proposal.new) or not against:
        return ""
    result = git.run(home, "merge-base", against, proposal.new)
    return result.out.decode().strip() if result.code == 0 else ""


def show(home: GateHome, config: GateConfig, proposal: Proposal) -> tuple[str, str]:
    """A proposal for reading: its commits (one line each), and its changes as a patch.

    A rewrite or a deletion also says which commits upstream would lose.
    """
    tip, old = proposal.new, proposal.old
    base = base_of(home, config, proposal)
    style = "--format=%h %an: %s"
    lines: list[str] = []
    if not refs.is_zero(tip):
        log = git.check(
            home, "log", "--no-show-signature", style, "-n", "200", tip, *([f"^{base}"] if base else []), "--"
        )
        lines += [f"+ {line}" for line in log.decode("utf-8", "replace").splitlines()]
    if proposal.kind in ("force", "delete") and not refs.is_zero(old):
        keeps = [f"^{tip}"] if not refs.is_zero(tip) else ["--not", "--exclude=" + proposal.ref, "--branches"]
        lost = git.check(home, "log", "--no-show-signature", style, "-n", "200", old, *keeps, "--")
        lines += [f"- {line}" for line in lost.decode("utf-8", "replace").splitlines()]
    if refs.is_zero(tip):
        return "\n".join(lines), ""
    empty = "4b825dc642cb6eb9a060e54bf8d69288fbee4904" if len(tip) == 40 else _EMPTY_SHA256
    return "\n".join(lines), _patch(home, base or empty, tip)


def _patch(home: GateHome, base: str, tip: str) -> str:
    """The changes between two commits; instead of a patch that is too large, how to see it."""
    arguments = ["diff", "--no-ext-diff", "--no-textconv", "--no-color", base, tip, "--"]
    try:
        return git.check(home, *arguments, timeout=DIFF_SECONDS).decode("utf-8", "replace")
    except TerokError as error:
        command = f"git -C {home.repo} diff --no-ext-diff --no-textconv --stat {base} {tip}"
        return f"The patch can't be shown here: {error.what}\nLook at parts of it with: {command}\n"


_EMPTY_SHA256 = "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321"
"""git's name of the empty tree in a SHA-256 repository; it knows it without having it."""
