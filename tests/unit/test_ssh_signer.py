"""The signer's process, driven by OpenSSH's own clients."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.standins.signer import Operator, Signer


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    """An operator whose scope `work` has one Ed25519 key, also called `work`."""
    operator = Operator(tmp_path)
    operator.terok("ssh", "generate", "--scope", "work")
    return operator


@pytest.fixture
def signer(operator: Operator) -> Iterator[Signer]:
    with Signer(operator, "work") as running:
        yield running


def run(signer: Signer, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, input=stdin, env=signer.env, capture_output=True, text=True, timeout=30)


def test_ssh_add_lists_the_scopes_keys(signer: Signer) -> None:
    listed = run(signer, "ssh-add", "-L")
    assert listed.stdout == signer.operator.terok("ssh", "pub", "work")
    assert [line["verdict"] for line in signer.audit("list")] == ["allowed"]


def test_a_signature_verifies(signer: Signer, tmp_path: Path) -> None:
    public = signer.operator.terok("ssh", "pub", "work")
    (tmp_path / "key.pub").write_text(public)
    (tmp_path / "allowed").write_text(f"me@example.test {public}")
    signed = run(signer, "ssh-keygen", "-Y", "sign", "-n", "git", "-f", str(tmp_path / "key.pub"), stdin="text")
    (tmp_path / "signature").write_text(signed.stdout)
    verify = ["ssh-keygen", "-Y", "verify", "-n", "git", "-f", str(tmp_path / "allowed"), "-I", "me@example.test"]
    assert run(signer, *verify, "-s", str(tmp_path / "signature"), stdin="text").returncode == 0
    assert run(signer, *verify, "-s", str(tmp_path / "signature"), stdin="other").returncode != 0
    line = signer.audit("sign")[-1]
    assert (line["verdict"], line["key"], line["namespace"]) == ("allowed", "work", "git")
