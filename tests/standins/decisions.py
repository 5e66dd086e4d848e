"""A person with terok's directories, and things that wait for a decision: real question files, a real desk."""

from __future__ import annotations

import io
import json
import os
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from terok_host.runtime.kit.env import Env, Output
from terok_host.runtime.queue import cli
from terok_host.sidecars.airlock import questions
from terok_host.sidecars.airlock.questions import Question
from terok_host.sidecars.shield import bundle as files
from terok_host.sidecars.shield.dnsmasq import Features
from terok_host.sidecars.shield.model import Model
from terok_host.sidecars.shield.state import State
from terok_host.sidecars.ssh.confirm import Desk, Pending
from terok_host.sidecars.vault.books.ledger import Ledger, Limit
from terok_host.supervisor import record
from terok_host.supervisor.ground import pids
from terok_host.supervisor.ground.errors import Exit
from terok_host.supervisor.record import Process, Record, Row

ID = "0a1b2c3d4e5f"


class Operator:
    """A person with terok's directories, and what the two verbs print."""

    def __init__(self, base: Path) -> None:
        (base / "config" / "terok").mkdir(parents=True)
        paths = f"paths: {{data: {base}/data, runtime: {base}/run}}\n"
        (base / "config" / "terok" / "config.yml").write_text(paths)
        self.environ = {"HOME": str(base), "XDG_CONFIG_HOME": str(base / "config"), "XDG_RUNTIME_DIR": str(base)}
        self.messages = ""
        self.layout = self.env(io.StringIO(), json_output=False).layout

    def env(self, stream: io.StringIO, *, json_output: bool) -> Env:
        return Env(self.environ, out=Output(json_output=json_output, stream=stream), messages=io.StringIO())

    def pending(self, name: str | None = None, *, code: int = Exit.OK) -> str:
        """What people see."""
        stream = io.StringIO()
        env = self.env(stream, json_output=False)
        assert cli.pending(Namespace(name=name), env) == code
        assert isinstance(env.messages, io.StringIO)
        self.messages = env.messages.getvalue()
        return stream.getvalue()

    def rows(self, name: str | None = None) -> list[dict[str, Any]]:
        """What programs see."""
        stream = io.StringIO()
        cli.pending(Namespace(name=name), self.env(stream, json_output=True))
        rows: list[dict[str, Any]] = json.loads(stream.getvalue())
        return rows

    def decide(
        self,
        identifier: str,
        answer: str,
        *,
        duration: str | None = None,
        always: bool = False,
        raise_by: int | None = None,
    ) -> str:
        stream = io.StringIO()
        words = Namespace(id=identifier, answer=answer, duration=duration, once=False, always=always, raise_by=raise_by)
        assert cli.decide(words, self.env(stream, json_output=False)) == Exit.OK
        return stream.getvalue()

    def hold(self, container: str, identifier: str = ID, name: str = "files.example.com") -> None:
        """A container that runs, whose relay (this process) shows a question."""
        bundle = self.layout.bundle(container)
        os.makedirs(os.path.dirname(bundle.airlock_pending), exist_ok=True)
        own = Process(os.getpid(), pids.start_time(os.getpid()))
        relay = (("airlock", Row(own, "running")),)
        record.write(bundle.record, Record(container, container=own, supervisor=own, phase="ready", services=relay))
        shield = State((), (), Model(), {}, Features((2, 90)), addresses={})
        Path(bundle.shield).write_text(files.encode(shield))
        now = time.time()
        question = Question(identifier, name, 443, now, now + 60, 2)
        Path(bundle.airlock_pending).write_bytes(questions.encode([question], os.getpid()))

    def sign(self, container: str = "signing", key: str = "work key") -> tuple[Desk, Pending]:
        """A container that wants a signature."""
        desk = Desk(self.layout.bundle(container).confirm)
        shown: dict[str, object] = {
            "key": key,
            "fingerprint": "SHA256:x",
            "host": "forge.test",
            "user": "git",
            "namespace": None,
        }
        return desk, desk.ask(shown, time.monotonic())

    def use(self, scope: str, requests: int, tokens: int, *, limit: Limit | None = None) -> None:
        """A container of a scope has used so much in this hour; optionally a limit is set."""
        ledger = Ledger(self.layout.vault_usage)
        hour = int(time.time()) // 3600
        ledger.add({(scope, "box", "anthropic", hour): [requests, 0, 0, tokens, 0, 0]})
        if limit is not None:
            ledger.set_limit(limit)
        ledger.close()
