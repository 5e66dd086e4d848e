"""A push, from its first command to its report.

The commands are judged before the pack is read. What remains goes to `git receive-pack` in a scratch repository that
borrows the mirror's objects and has no refs: there git unpacks, checks the objects and that nothing is missing. Then
the keeper is asked to take the objects over and to change the refs; it judges again, since this process reads the
container's bytes and is not believed. The client's report is written last, so nothing is promised that did not happen.
"""

from __future__ import annotations

import os

from ...kit.refusal import Refused
from .. import git, pktline, refs, state
from ..policy import Judge, against_view
from ..site import STAGED, make_scratch, remove_tree
from . import backend, channel
from .connection import Body, ChunkedAnswer, Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from ..config import GateConfig
    from ..pktline import Command, Push
    from ..site import Site

    class Front(Protocol):
        """The gate, as a push sees it."""

        site: Site
        config: GateConfig

        def ask(self, request: dict[str, object], *, seconds: float) -> Any: ...


RESULT_TYPE = "application/x-git-receive-pack-result"
_PACK_HEAD = 12


def receive(front: Front, connection: Connection, body: Body) -> None:
    """Answer one POST to git-receive-pack.

    Raises:
        Refused: the body is not a push.
        connection.Gone: the client left; nothing was changed.
    """
    limits = front.config.limits
    reader = pktline.CommandReader(commands_max=limits.commands, oid_length=front.config.oid_length)
    try:
        head = None
        while head is None and not body.done:
            head = reader.feed(body.pull())
    except pktline.ProtocolError as error:
        raise Refused(400, "push", f"The push is refused: {error}.") from None
    if head is None:
        raise Refused(400, "push", "The push ends in its list of refs.")
    answer = ChunkedAnswer(connection, 200, {"Content-Type": RESULT_TYPE, "Cache-Control": "no-cache"})
    if head.commands:  # without any it is git's probe whether its credentials are good
        _Receiver(front, head, answer).run(body, reader.rest)
    answer.finish()


class _Receiver:
    """One push on its way."""

    def __init__(self, front: Front, push: Push, answer: ChunkedAnswer) -> None:
        self.front, self.push, self.answer = front, push, answer
        self.side_band = "side-band-64k" in push.capabilities or "side-band" in push.capabilities
        judge = Judge(front.config.policy, front.site.container, front.config.default_branch)
        overlay = state.overlay(front.site.home, front.site.container, front.config.mode)
        view = refs.read(front.site.home) if overlay else {}
        self.reasons = {
            command.ref: judge.before_pack(against_view(command, overlay, view)) for command in push.commands
        }
        if "atomic" in push.capabilities and any(self.reasons.values()):
            self._refuse_rest("the atomic push was refused for another ref")

    def run(self, body: Body, first: bytes) -> None:
        """Take the pack, have the refs changed, write the report."""
        unpack = "ok"
        name = f"push-{os.getpid()}"
        path = self.front.site.scratch(name)
        try:
            chosen = [wish for wish in self.push.commands if not wish.deletes and not self.reasons[wish.ref]]
            if chosen:
                unpack = self._unpack(name, chosen, body, first)
            else:
                body.drain(limit=self.front.config.limits.pack_bytes, seconds=self.front.config.limits.push_seconds)
            if unpack != "ok":
                self._refuse_rest("the pack was not taken")
            elif "atomic" in self.push.capabilities and any(self.reasons.values()):
                self._refuse_rest("the atomic push was refused for another ref")
            self._land(name)
        finally:
            remove_tree(path)
        if "report-status" in self.push.capabilities or "report-status-v2" in self.push.capabilities:
            results = [(command.ref, self.reasons[command.ref]) for command in self.push.commands]
            self.answer.write(pktline.report(unpack, results, side_band=self.side_band))

    def _refuse_rest(self, reason: str) -> None:
        self.reasons = {ref: old or reason for ref, old in self.reasons.items()}

    def _unpack(self, name: str, chosen: list[Command], body: Body, first: bytes) -> str:
        """Let git take the pack into the scratch repository; returns "ok" or why it did not."""
        limits = self.front.config.limits
        while len(first) < _PACK_HEAD and not body.done:
            first += body.pull()
        if first[:4] != b"PACK" or len(first) < _PACK_HEAD:
            return "there is no pack"
        objects = int.from_bytes(first[8:12], "big")
        if objects > limits.pack_objects:
            body.drain(limit=limits.pack_bytes, seconds=limits.push_seconds)
            return f"the pack has {objects} objects; this gate takes {limits.pack_objects}"
        # git finds the mirror's tips through the borrowed objects, except where it looks whether a push from a shallow
        # clone would make this repository shallow
        have = refs.visible(refs.read(self.front.site.home)) if self.push.shallow else {}
        make_scratch(self.front.site, self.front.config, name, have)
        collect = _Collect(self.answer if self.side_band else None)
        variables = git.backend_variables(
            self.front.site.incoming, f"/{name}/git-receive-pack", "POST", "", "application/x-git-receive-pack-request"
        )
        pairs = git.serving_config(self.front.site.home, limits)
        pairs.append(("safe.directory", self.front.site.scratch(name)))
        head = pktline.staged(self.push, chosen, STAGED)
        errors, _ = backend.run(
            body.connection,
            variables,
            pairs,
            body,
            head + first,
            collect.feed,
            seconds=limits.push_seconds,
            idle=limits.idle_seconds,
        )
        try:
            unpack, results = pktline.parse_report(collect.report)
        except pktline.ProtocolError:
            return errors.decode(errors="replace").strip().split("\n")[0] or "git did not take the pack"
        for number, command in enumerate(chosen):
            self.reasons[command.ref] = results.get(f"{STAGED}{number}", "git did not answer for this ref")
        return unpack

    def _land(self, name: str) -> None:
        """Ask the keeper; fills `reasons`."""
        commands = [{**command._asdict(), "refused": self.reasons[command.ref]} for command in self.push.commands]
        request = {"op": "land", "name": name, "commands": commands, "atomic": "atomic" in self.push.capabilities}
        results: dict[str, str] = {}
        try:
            for answer in self.front.ask(request, seconds=self.front.config.limits.push_seconds):
                if self.side_band and "say" in answer:
                    self.answer.write(pktline.band(2, answer["say"].encode(errors="replace") + b"\n"))
                results.update(answer.get("results", {}))
        except channel.ChannelError:
            pass
        for ref, reason in self.reasons.items():
            self.reasons[ref] = results.get(ref, reason or "the gate could not finish this; try again")


class _Collect:
    """Takes receive-pack's answer apart: keeps the report, passes what is meant for people on."""

    def __init__(self, answer: ChunkedAnswer | None) -> None:
        self._answer = answer
        self._splitter = pktline.Splitter()
        self._head: bytes | None = b""
        self.report = b""

    def feed(self, data: bytes) -> None:
        """Take output of git-http-backend."""
        if self._head is not None:
            self._head += data
            _, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._head = None
        self._splitter.feed(data)
        while (line := self._splitter.take()) is not None:
            if line is pktline.FLUSH or not line:
                continue
            if line[0] == 1:
                self.report += line[1:]
            elif self._answer is not None and line[0] in (2, 3):
                self._answer.write(pktline.band(2, line[1:]))
