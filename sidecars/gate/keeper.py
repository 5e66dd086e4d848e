"""The keeper: the half of a gate that owns the refs and may use the scope's credential.

It reads no byte of the container's; it gets requests from the front, each checked again. Every job runs in a forked
process of its own, so that a secret lives only as long as the operation that needs it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback

from ...supervisor.ground import kernel, paste, sockets
from ...supervisor.ground.errors import TerokError
from ..kit.halves import keeper
from ..kit.reactor import READ
from . import config, state
from .serving import channel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..kit.audit import Audit
    from .site import Site

JOBS_MAX = 8
"""Jobs at a time; further ones wait in the channel."""

NOTE_MAX = 1000


class Keeper(keeper.Keeper):
    """Runs the front's jobs until the front ends.

    Args:
        site: the container and the scope.
        audit: the container's audit log.
        link: our end of the channel.
        front: the front's pid.
    """

    def __init__(self, site: Site, audit: Audit, link: int, front: int) -> None:
        super().__init__(link, front)
        self._site, self._audit = site, audit

    def _asked(self, _events: int) -> None:
        _, fds = sockets.receive_fds(self._link)
        if len(fds) == 1:
            self._begin(lambda: self._job(fds[0]))
        for fd in fds:
            os.close(fd)
        if len(self._jobs) == JOBS_MAX:
            self._reactor.forget(self._link)

    def _job_ended(self, fd: int) -> None:
        super()._job_ended(fd)
        if len(self._jobs) == JOBS_MAX - 1:
            self._reactor.watch(self._link, READ, self._asked)

    def end_front(self) -> None:
        """Kill the front and the jobs, and with them every git process below them; collect all of them.

        In any order: the first process of a pid namespace ends only when all others there are collected, and some
        of these are our own children (pid_namespaces(7)). Without such a namespace git's processes outlive the front by
        a moment, in which they may still write: they come to us, and are waited for too.
        """
        kernel.adopt_orphans()
        for pid in (self._front, *self._jobs.values()):
            if pid:
                os.kill(pid, signal.SIGKILL)
        self._front, self._jobs = 0, {}
        try:
            while True:
                os.waitpid(-1, 0)
        except ChildProcessError:
            pass

    def _job(self, fd: int) -> int:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(self._link)
        job = channel.Job(fd)
        try:
            request = job.request()
            handler = HANDLERS.get(str(request.get("op")))
            if handler is not None:
                job.answer(handler(self, request, job))
        except TerokError as error:
            job.answer({"failed": str(error)})
            self._audit.write("failure", reason=error.what, allow=error.fix)
        except channel.ChannelError:
            pass
        except Exception:  # noqa: BLE001 - one job's fault ends that job; the log has the whole of it
            traceback.print_exc(file=sys.stderr)
            return 70
        finally:
            job.close()
        return 0

    # -- jobs --

    def tokens(self, request: dict[str, object], job: channel.Job) -> dict[str, object]:
        """The digests of the tokens that are good at this gate."""
        from ..store.store import Store

        try:
            with Store.open(self._site.store, read_only=True) as store:
                known = store.tokens(self._site.container)
        except TerokError:
            return {"digests": []}
        good = [token for token in known if token.provider == "gate" and token.scope == self._site.scope]
        return {"digests": [token.digest.hex() for token in good]}

    def note(self, request: dict[str, object], job: channel.Job) -> dict[str, object]:
        """A line of the audit log, for the front."""
        fields = request.get("fields")
        items = fields.items() if isinstance(fields, dict) else ()
        plain = {str(name)[:40]: value[:NOTE_MAX] if isinstance(value, str) else value for name, value in items}
        for reserved in ("time", "source", "event"):
            plain.pop(reserved, None)
        self._audit.write(str(request.get("event"))[:40], **plain)
        return {}

    def land(self, request: dict[str, object], job: channel.Job) -> dict[str, object]:
        """A push whose objects have arrived."""
        from .forge.landing import Landing

        landing = Landing(self._site, lambda text: job.answer({"say": text}))
        try:
            results = landing.land(request)
        except TerokError as error:
            reason = f"gate: {error}"
            results = {ref: old or reason for ref, old in landing.results.items()}
        self._record(results, request)
        return {"results": results}

    def _record(self, results: dict[str, str], request: dict[str, Any]) -> None:
        news = {item["ref"]: item["new"] for item in request["commands"]}
        for ref, reason in results.items():
            fields = {"ref": ref, "new": news[ref], "verdict": "refused" if reason else "accepted"}
            if reason:
                fields |= {"reason": reason, "allow": paste.command("terok", "gate", "policy", self._site.scope)}
            self._audit.write("push", **fields)
            state.log(self._site.home, "push", container=self._site.container, **fields)

    def refresh(self, request: dict[str, object], job: channel.Job) -> dict[str, object]:
        """News from upstream, unless another one asks for them right now or has just done so."""
        from . import mirror
        from .forge import sync

        settings = config.load(self._site.home)
        with state.State(self._site.home) as kept:
            if time.time() - kept.tried < settings.refresh_seconds:
                return {}
            kept.tried = time.time()
            kept.save()
        try:
            sync.synchronise(self._site, settings)
        finally:
            job.answer({})
        mirror.tidy(self._site.home)  # no client waits for it
        return {}


HANDLERS = {"tokens": Keeper.tokens, "note": Keeper.note, "land": Keeper.land, "refresh": Keeper.refresh}
