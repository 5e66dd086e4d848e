"""An operator of the tests: somebody with a home directory of their own who types commands, in this process."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from terok_host.runtime import cli
from terok_host.sidecars.store import tiers
from terok_host.sidecars.store.store import Store
from terok_host.supervisor.ground.layout import Layout
from tests.standins.stores import unlocked

PASSPHRASE = "correct horse battery"


class Ran(NamedTuple):
    """How a command line ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


class Operator:
    """Somebody with a home directory of their own who types commands."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self._capsys, self._monkeypatch = home, capsys, monkeypatch
        self.layout = Layout(str(home / "data"), str(home / "run"), str(home / "config" / "terok"))
        config = home / "config" / "terok" / "config.yml"
        config.parent.mkdir(parents=True)
        config.write_text(f"paths: {{data: {self.layout.data}, runtime: {self.layout.runtime}}}\n")
        monkeypatch.setattr(tiers, "SCRYPT", {"n": 1 << 10, "r": 8, "p": 1})
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_RUNTIME_DIR": str(home / "run"),
        }
        for name in list(os.environ):
            monkeypatch.delenv(name)
        for name, value in self.environ.items():
            monkeypatch.setenv(name, value)

    def __call__(self, *words: str, stdin: str = "") -> Ran:
        with self._monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            try:
                code = cli.run(words)
            except SystemExit as end:
                code = int(end.code or 0)
        out, err = self._capsys.readouterr()
        return Ran(code, out, err)

    def add(self, scope: str = "work", provider: str = "mistral", secret: str = "real-secret-value", *more: str) -> Ran:
        return self("vault", "add", scope, provider, *more, stdin=secret + "\n")

    def store(self) -> Store:
        return unlocked(self.layout)


def recovery_key(ran: Ran) -> str:
    return next(line.strip() for line in ran.err.splitlines() if line.count("-") == 8)


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def vendor_file(home: Path, path: str, text: str) -> Path:
    file = home / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def stored(terok: Operator, scope: str, provider: str) -> tuple[bytes, dict[str, Any]]:
    with terok.store() as store:
        item = store.get("credential", scope, provider)
        assert item is not None
        return item.secret, item.meta
