"""What becomes of a push whose objects have arrived: judged again, then proposed or passed on to upstream."""

from __future__ import annotations

import re
from typing import NamedTuple

from ....supervisor.ground import paste
from ....supervisor.ground.errors import TerokError
from .. import config, objects, refs, state
from ..pktline import Command, is_oid, valid_ref
from ..policy import Judge, against_view, own_prefix
from . import remote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ....supervisor.ground.layout import GateHome
    from ..config import GateConfig
    from ..site import Site

MOVED = "the ref has moved meanwhile; fetch first"
_NAME = re.compile(r"push-[0-9]{1,10}")


class Wish(NamedTuple):
    """One ref that may be changed: the client's command, and its kind (create, update, force or delete)."""

    command: Command
    kind: str


class Landing:
    """One push.

    Args:
        site: whose.
        say: prints a line at the client (`remote: ...`).
    """

    def __init__(self, site: Site, say: Callable[[str], None]) -> None:
        self.site, self.say = site, say
        self.home = site.home
        self.config: GateConfig = config.load(site.home)
        self.refs: dict[str, str] = {}
        self.overlay: dict[str, str] = {}
        self.results: dict[str, str] = {}

    def land(self, request: dict[str, object]) -> dict[str, str]:
        """Carry it out.

        Args:
            request: `name` of the scratch repository, `commands` (each with `refused`, the front's own reason) and
                `atomic`. It comes from a process that reads the container's bytes: nothing in it is believed.

        Returns:
            For each ref "" when it was changed, else the reason.

        Raises:
            TerokError: the request is malformed, or the mirror is broken.
        """
        commands = _commands(request, self.config)
        self.results = {command.ref: reason for command, reason in commands}
        wanted = [command for command, reason in commands if not reason]
        if any(not command.deletes for command in wanted):
            name = str(request.get("name"))
            if _NAME.fullmatch(name) is None:
                raise TerokError("The push has no name.")
            self._check_size()
            objects.take_over(self.home, f"{self.site.scratch(name)}/objects")
        self.refs = refs.read(self.home)
        self.overlay = state.overlay(self.home, self.site.container, self.config.mode)
        wishes = self._judge(wanted)
        atomic = bool(request.get("atomic"))
        if atomic and any(self.results.values()):
            self._fail(wishes, "the atomic push was refused for another ref")
            wishes = []
        if wishes:
            (self._online if self.config.mode == "online" else self._propose)(wishes, atomic)
        return self.results

    def _check_size(self) -> None:
        size, most = objects.size(self.home), self.config.limits.mirror_bytes
        if size > most:
            raise TerokError(
                f"The mirror has {size} bytes; its limit is {most}.",
                fix=f"terok gate sync {paste.quoted(self.site.scope)}, "
                f"or terok gate set {paste.quoted(self.site.scope)} --limit mirror_bytes=N",
            )

    def _judge(self, commands: list[Command]) -> list[Wish]:
        judge = Judge(self.config.policy, self.site.container, self.config.default_branch)
        types = refs.kinds(self.home, [command.new for command in commands if not command.deletes])
        wishes = []
        for command in commands:
            kind, reason = self._kind(command, types)
            reason = reason or judge.refusal(kind, command.ref)
            self.results[command.ref] = reason
            if not reason:
                wishes.append(Wish(command, kind))
        return wishes

    def _kind(self, command: Command, types: dict[str, str]) -> tuple[str, str]:
        """What kind of change it is, and why it is impossible ("" when it is not)."""
        now = {**self.refs, **self.overlay}.get(command.ref, refs.zeros(command.old))
        if now != command.old:
            return "", MOVED
        command = against_view(command, self.overlay, self.refs)
        if command.deletes:
            return "create" if command.creates else "delete", ""
        type_ = types.get(command.new, "missing")
        if type_ == "missing" or (command.ref.startswith("refs/heads/") and type_ != "commit"):
            return "", f"its new tip is {'missing' if type_ == 'missing' else f'a {type_}, not a commit'}"
        if command.creates:
            return "create", ""
        return ("update" if refs.is_ancestor(self.home, command.old, command.new) else "force"), ""

    def _fail(self, wishes: list[Wish], reason: str) -> None:
        for wish in wishes:
            self.results[wish.command.ref] = reason

    # -- gatekeeping --

    def _propose(self, wishes: list[Wish], atomic: bool) -> None:
        """Make proposals; a container's own branches, to which no other pushes, show their new tips at once."""
        with state.State(self.home) as kept:
            groups = [wishes] if atomic else [[wish] for wish in wishes]
            for group in groups:
                if any(self._stale(kept, wish) for wish in group):
                    self._fail(group, MOVED)
                    continue
                change = refs.Change(self.home)
                notes = [self._proposal(kept, change, wish) for wish in group]
                problem = change.commit()
                if problem:
                    self._fail(group, problem)
                    kept.undo()
                    continue
                kept.save()
                for note in notes:
                    self.say(note)

    def _stale(self, kept: state.State, wish: Wish) -> bool:
        """Whether another push of this container has replaced the proposal that this one amends."""
        if wish.command.ref.startswith(own_prefix(self.site.container)):
            return False  # its branch is in the view, where the transaction compares
        now = kept.of(state.CONTAINER, self.site.container, wish.command.ref)
        return (now.new if now else None) != self.overlay.get(wish.command.ref)

    def _proposal(self, kept: state.State, change: refs.Change, wish: Wish) -> str:
        ref, new = wish.command.ref, wish.command.new
        theirs = self.refs.get(refs.upstream_name(ref), refs.zeros(new))
        earlier = kept.of(state.CONTAINER, self.site.container, ref)
        if ref.startswith(own_prefix(self.site.container)):
            change.set(ref, new, wish.command.old)
            if wish.kind in ("force", "delete"):
                change.keep(ref, wish.command.old)
        elif earlier and not refs.is_zero(earlier.new):
            change.keep(ref, earlier.new)
        if new == theirs:
            kept.drop(earlier, change)
            return f"{ref} is as upstream has it; nothing is left to approve"
        kind = kind_between(self.home, theirs, new)
        proposal = kept.propose(state.CONTAINER, self.site.container, ref, kind, theirs, new, change)
        approve = paste.command("terok", "gate", "approve", self.site.scope, str(proposal.number))
        return f"proposal {proposal.number}: {kind} {ref} waits for '{approve}'"

    # -- online --

    def _online(self, wishes: list[Wish], atomic: bool) -> None:
        """Push on to upstream, and change the mirror where upstream agreed."""
        pushes = [remote.Move(wish.command.ref, wish.command.old, wish.command.new) for wish in wishes]
        with remote.access(self.site, self.config) as way:
            verdicts = remote.push(self.home, self.config, way, pushes, atomic=atomic, say=self.say)
        for wish in wishes:
            ref = wish.command.ref
            self.results[ref] = verdicts.get(ref, "upstream did not answer for this ref")
            if not self.results[ref]:
                problem = accept(self.home, wish.command, wish.kind)
                if problem:
                    self.say(f"upstream has {ref}, the gate's mirror follows with its next synchronisation: {problem}")


def kind_between(home: GateHome, old: str, new: str) -> str:
    """The kind of a change from one tip to another; zeros stand for no ref."""
    if refs.is_zero(new):
        return "delete"
    if refs.is_zero(old):
        return "create"
    return "update" if refs.is_ancestor(home, old, new) else "force"


def accept(home: GateHome, command: Command, kind: str) -> str:
    """Let the mirror follow a change that upstream has taken; "" or why it could not."""
    with state.State(home):
        change = refs.Change(home)
        change.set(command.ref, command.new)
        change.set(refs.upstream_name(command.ref), command.new)
        if kind in ("force", "delete"):
            change.keep(command.ref, command.old)
        return change.commit()


def _commands(request: dict[str, object], config: GateConfig) -> list[tuple[Command, str]]:
    """Check the commands of a request again; raises TerokError for anything that the front would not send."""
    judged: list[tuple[Command, str]] = []
    seen: set[str] = set()
    items = request.get("commands")
    if not isinstance(items, list) or not 0 < len(items) <= config.limits.commands:
        raise TerokError("The push has no list of refs.")
    for item in items:
        if not isinstance(item, dict):
            raise TerokError("A ref of the push is malformed.")
        values = [value for key in ("old", "new", "ref", "refused") if isinstance(value := item.get(key), str)]
        if len(values) != 4:
            raise TerokError("A ref of the push is malformed.")
        old, new, ref, refused = values
        lengths = {len(old), len(new), config.oid_length}
        if not (is_oid(old) and is_oid(new) and len(lengths) == 1 and valid_ref(ref)) or ref in seen:
            raise TerokError("A ref of the push is malformed.")
        seen.add(ref)
        judged.append((Command(old, new, ref), refused[:400]))
    return judged
