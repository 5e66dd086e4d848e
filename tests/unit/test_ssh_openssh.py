"""OpenSSH's ssh, scp and git over SSH, against a real sshd, with no key but the signer's."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from terok_host.supervisor.ground.errors import Exit
from tests.standins.signer import Operator, Signer
from tests.standins.sshd import HOST, Sshd


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    operator = Operator(tmp_path / "operator")
    operator.terok("ssh", "generate", "key", "--scope", "work")
    return operator


@pytest.fixture
def sshd(operator: Operator, tmp_path: Path) -> Iterator[Sshd]:
    """An sshd that lets the key in; nothing is pinned yet."""
    (tmp_path / "sshd").mkdir()
    with Sshd(tmp_path / "sshd", operator.terok("ssh", "pub", "key")) as running:
        yield running


@pytest.fixture
def trusted(operator: Operator, sshd: Sshd) -> Sshd:
    """The same, with its Ed25519 key pinned for the user that it lets in."""
    operator.terok("ssh", "trust", sshd.name, "--key", sshd.host_key(), "--user", sshd.user)
    return sshd


@pytest.fixture
def signer(operator: Operator) -> Iterator[Signer]:
    with Signer(operator, "work") as running:
        yield running


def run(signer: Signer, *words: str, cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    env = {**signer.env, **more}
    return subprocess.run(words, env=env, cwd=cwd, capture_output=True, text=True, timeout=60)


def git(signer: Signer, sshd: Sshd, *words: str, cwd: Path) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=me@example.test", "-c", "init.defaultBranch=main"]
    ssh = " ".join(sshd.ssh())
    done = run(signer, "git", *identity, *words, cwd=cwd, GIT_SSH_COMMAND=ssh, GIT_CONFIG_NOSYSTEM="1")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ssh_logs_in_to_a_pinned_host(signer: Signer, trusted: Sshd) -> None:
    done = run(signer, *trusted.ssh(HOST, "echo", "in"))
    assert done.stdout == "in\n", done.stderr + trusted.log()
    line = signer.audit("sign")[-1]
    assert (line["verdict"], line["host"], line["user"]) == ("allowed", f"[{HOST}]:{trusted.port}", trusted.user)
    assert (line["key"], line["namespace"]) == ("key", None)
    assert [each["verdict"] for each in signer.audit("bind")] == ["allowed"]


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_every_type_of_host_key_is_verified(signer: Signer, operator: Operator, sshd: Sshd, kind: str) -> None:
    operator.terok("ssh", "trust", sshd.name, "--key", sshd.host_key(kind), "--user", sshd.user)
    algorithm = {"ed25519": "ssh-ed25519", "ecdsa": "ecdsa-sha2-nistp384", "rsa": "rsa-sha2-512"}[kind]
    done = run(signer, *sshd.ssh("-o", f"HostKeyAlgorithms={algorithm}", HOST, "true"))
    assert done.returncode == 0, done.stderr
    assert signer.audit("bind")[-1]["verdict"] == "allowed"


@pytest.mark.parametrize("kind", ["ecdsa-256", "ecdsa-521", "rsa"])
def test_every_type_of_key_logs_in(signer: Signer, operator: Operator, trusted: Sshd, kind: str) -> None:
    public = operator.terok("ssh", "generate", "other", "--type", kind, "--scope", "work")
    operator.terok("ssh", "unlink", "key", "--scope", "work")
    operator.terok("ssh", "trust", trusted.name, "--key", trusted.host_key(), "--user", trusted.user)
    (trusted.base / "authorized_keys").write_text(public)
    done = run(signer, *trusted.ssh(HOST, "true"))
    assert done.returncode == 0, done.stderr
    assert signer.audit("sign")[-1]["key"] == "other"


def test_without_a_pin_no_login_is_signed(signer: Signer, sshd: Sshd) -> None:
    done = run(signer, *sshd.ssh(HOST, "true"))
    assert "Permission denied" in done.stderr
    bind, sign = signer.audit("bind")[-1], signer.audit("sign")[-1]
    assert (bind["verdict"], bind["reason"]) == ("refused", "the host key is not pinned")
    assert bind["allow"] == "terok ssh trust HOST"
    assert bind["host_key"].startswith("SHA256:")
    assert sign["verdict"] == "refused"


def test_a_host_with_another_key_is_refused(signer: Signer, operator: Operator, sshd: Sshd) -> None:
    operator.terok("ssh", "trust", sshd.name, "--key", sshd.host_key("rsa"), "--user", sshd.user)
    done = run(signer, *sshd.ssh("-o", "HostKeyAlgorithms=ssh-ed25519", HOST, "true"))
    assert "Permission denied" in done.stderr
    assert signer.audit("sign")[-1]["verdict"] == "refused"


def test_another_user_name_is_refused(signer: Signer, operator: Operator, sshd: Sshd) -> None:
    operator.terok("ssh", "trust", sshd.name, "--key", sshd.host_key())  # for the default user, git
    assert run(signer, *sshd.ssh("-l", sshd.user, HOST, "true")).returncode != 0
    line = signer.audit("sign")[-1]
    assert (line["verdict"], line["reason"], line["user"]) == ("refused", "the user name is not allowed", sshd.user)
    assert line["allow"] == f"terok ssh trust '[{HOST}]:{sshd.port}' --user={sshd.user}"
    operator.terok("ssh", "trust", sshd.name, "--user", sshd.user)  # what the audit says would allow it
    assert run(signer, *sshd.ssh(HOST, "true")).returncode == 0


def test_the_pins_are_a_known_hosts_file(signer: Signer, operator: Operator, trusted: Sshd, tmp_path: Path) -> None:
    words = trusted.ssh("-o", "StrictHostKeyChecking=yes", HOST, "true")
    (trusted.base / "known_hosts").write_text(operator.terok("ssh", "known-hosts"))
    done = run(signer, *words)
    assert done.returncode == 0, done.stderr


def test_a_changed_policy_holds_for_the_running_process(signer: Signer, operator: Operator, trusted: Sshd) -> None:
    assert run(signer, *trusted.ssh(HOST, "true")).returncode == 0
    operator.terok("ssh", "untrust", trusted.name)
    assert run(signer, *trusted.ssh(HOST, "true")).returncode != 0
    operator.terok("ssh", "trust", trusted.name, "--key", trusted.host_key(), "--user", trusted.user)
    operator.terok("ssh", "unlink", "key", "--scope", "work")
    assert "no identities" in run(signer, "ssh-add", "-l").stdout
    assert run(signer, *trusted.ssh(HOST, "true")).returncode != 0


def test_scp(signer: Signer, trusted: Sshd, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    words = ["scp", *trusted.ssh()[1:], str(tmp_path / "file"), f"{HOST}:{tmp_path}/copy"]
    words[words.index("-p")] = "-P"
    done = run(signer, *words)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "copy").read_text() == "content"


def test_git_clone_push_fetch(signer: Signer, trusted: Sshd, tmp_path: Path) -> None:
    git(signer, trusted, "init", "-q", "--bare", str(tmp_path / "origin.git"), cwd=tmp_path)
    url = f"ssh://{HOST}:{trusted.port}{tmp_path}/origin.git"
    for name in ("one", "two"):
        git(signer, trusted, "clone", "-q", url, name, cwd=tmp_path)
    git(signer, trusted, "commit", "-q", "--allow-empty", "-m", "first", cwd=tmp_path / "one")
    git(signer, trusted, "push", "-q", "origin", "HEAD:main", cwd=tmp_path / "one")
    git(signer, trusted, "fetch", "-q", "origin", cwd=tmp_path / "two")
    assert git(signer, trusted, "log", "--format=%s", "origin/main", cwd=tmp_path / "two") == "first\n"
    assert [line["verdict"] for line in signer.audit("sign")] == ["allowed"] * 4


def test_git_signs_commits(signer: Signer, operator: Operator, sshd: Sshd, tmp_path: Path) -> None:
    public = operator.terok("ssh", "pub", "key")
    (tmp_path / "allowed").write_text(f"me@example.test {public}")
    git(signer, sshd, "init", "-q", "repo", cwd=tmp_path)
    for name, value in (
        ("gpg.format", "ssh"),
        ("gpg.ssh.defaultKeyCommand", "ssh-add -L"),
        ("gpg.ssh.allowedSignersFile", str(tmp_path / "allowed")),
    ):
        git(signer, sshd, "config", name, value, cwd=tmp_path / "repo")
    git(signer, sshd, "commit", "-q", "-S", "--allow-empty", "-m", "signed", cwd=tmp_path / "repo")
    git(signer, sshd, "tag", "-s", "-m", "signed", "v1", cwd=tmp_path / "repo")
    git(signer, sshd, "verify-commit", "HEAD", cwd=tmp_path / "repo")
    git(signer, sshd, "verify-tag", "v1", cwd=tmp_path / "repo")
    assert [line["namespace"] for line in signer.audit("sign")] == ["git", "git"]


def test_another_namespace_is_refused_until_it_is_allowed(signer: Signer, operator: Operator, tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text(operator.terok("ssh", "pub", "key"))
    (tmp_path / "file").write_text("text")
    sign = ["ssh-keygen", "-Y", "sign", "-n", "file", "-f", str(tmp_path / "key.pub"), str(tmp_path / "file")]
    assert run(signer, *sign).returncode != 0
    line = signer.audit("sign")[-1]
    assert (line["verdict"], line["namespace"]) == ("refused", "file")
    operator.terok("ssh", "policy", "key", "--namespace", "file")
    assert run(signer, *sign).returncode == 0


def test_a_forwarded_agent_is_refused_until_it_is_allowed(signer: Signer, operator: Operator, trusted: Sshd) -> None:
    hop = trusted.ssh("-A", HOST, *trusted.ssh(HOST, "echo", "there"))
    done = run(signer, *hop)
    assert "there" not in done.stdout
    refused = [line for line in signer.audit() if line["verdict"] == "refused"]
    assert refused[0]["event"] == "bind"
    assert refused[0]["forwarded"] is True
    assert "forwarded" in refused[0]["reason"]
    assert refused[-1]["event"] == "sign"
    operator.terok("ssh", "policy", "key", "--forwarding", "yes")
    done = run(signer, *hop)
    assert done.stdout == "there\n", done.stderr


def test_a_client_that_does_not_bind(
    signer: Signer, operator: Operator, trusted: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paramiko's client speaks to an agent and never binds, as OpenSSH before 8.9."""
    import paramiko

    monkeypatch.setenv("SSH_AUTH_SOCK", signer.path)
    agent = paramiko.Agent()
    (agent_key,) = agent.get_keys()

    def log_in() -> None:
        transport = paramiko.Transport((HOST, trusted.port))
        try:
            transport.start_client(timeout=20)
            transport.auth_publickey(trusted.user, agent_key)
        finally:
            transport.close()

    with pytest.raises(paramiko.SSHException):
        log_in()
    line = signer.audit("sign")[-1]
    assert line["reason"] == "the client did not bind the connection to its session"
    assert "--require-bind no" in line["allow"]
    operator.terok("ssh", "policy", "key", "--require-bind", "no")
    log_in()
    agent.close()
    assert signer.audit("sign")[-1]["verdict"] == "allowed"


def test_a_scanned_key_is_pinned_only_when_its_fingerprint_was_compared(
    signer: Signer, operator: Operator, sshd: Sshd
) -> None:
    said = operator.terok("ssh", "trust", sshd.name, "--scan", code=Exit.MANUAL)
    shown = subprocess.run(["ssh-keygen", "-lf", sshd.host_key()], capture_output=True, text=True, check=True)
    fingerprint = shown.stdout.split()[1]
    assert fingerprint in said
    assert "none of these" in operator.terok(
        "ssh", "trust", sshd.name, "--scan", "--fingerprint", "SHA256:other", code=Exit.REFUSED
    )
    words = ["--scan", "--fingerprint", fingerprint, "--user", sshd.user]
    pinned = operator.json("ssh", "trust", sshd.name, *words)
    assert [each["fingerprint"] for each in pinned["keys"]] == [fingerprint]
    assert run(signer, *sshd.ssh(HOST, "true")).returncode == 0
