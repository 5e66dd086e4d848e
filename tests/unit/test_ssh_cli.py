"""`terok ssh` on the command line, with key files that OpenSSH and OpenSSL made."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path

import pytest

from terok_host.supervisor.ground.errors import Exit
from tests.standins.signer import Operator, Signer

PASSPHRASE = "correct horse"


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path / "operator")


def keygen(path: Path, *words: str, passphrase: str = "") -> str:
    """Make a key file with ssh-keygen; returns its public key without the comment."""
    command = ["ssh-keygen", "-q", "-N", passphrase, "-C", "made by ssh-keygen", "-f", str(path), *words]
    subprocess.run(command, check=True, timeout=60)
    return " ".join(Path(f"{path}.pub").read_text().split()[:2])


@pytest.mark.parametrize(
    "words",
    [
        ["-t", "ed25519"],
        ["-t", "ecdsa", "-b", "256"],
        ["-t", "ecdsa", "-b", "384", "-m", "PEM"],
        ["-t", "ecdsa", "-b", "521", "-m", "PKCS8"],
        ["-t", "rsa", "-b", "2048"],
        ["-t", "rsa", "-b", "2048", "-m", "PEM"],
        ["-t", "rsa", "-b", "2048", "-m", "PKCS8"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("passphrase", ["", PASSPHRASE], ids=["plain", "encrypted"])
def test_import_sign_export(operator: Operator, tmp_path: Path, words: list[str], passphrase: str) -> None:
    file = tmp_path / "id"
    public = keygen(file, *words, passphrase=passphrase)
    (tmp_path / "pass").write_text(passphrase + "\n")
    line = operator.terok("ssh", "import", str(file), "--scope", "work", "--passphrase-file", str(tmp_path / "pass"))
    assert line == f"{public} made by ssh-keygen\n"
    with Signer(operator, "work") as signer:
        listed = subprocess.run(["ssh-add", "-L"], env=signer.env, capture_output=True, text=True, timeout=30)
        assert listed.stdout == line
        sign = ["ssh-keygen", "-Y", "sign", "-n", "git", "-f", f"{file}.pub"]
        file.rename(tmp_path / "away")  # or ssh-keygen would sign with the file
        signed = subprocess.run(sign, input=b"text", env=signer.env, capture_output=True, timeout=30)
    (tmp_path / "signature").write_bytes(signed.stdout)
    (tmp_path / "allowed").write_text(f"me {public}\n")
    verify = ["ssh-keygen", "-Y", "verify", "-n", "git", "-I", "me"]
    verify += ["-f", str(tmp_path / "allowed"), "-s", str(tmp_path / "signature")]
    subprocess.run(verify, input=b"text", check=True, capture_output=True, timeout=30)
    written = tmp_path / "out"
    operator.terok("ssh", "export", "work", "--no-passphrase", "--output", str(written))
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    shown = subprocess.run(["ssh-keygen", "-y", "-f", str(written)], capture_output=True, text=True, check=True)
    assert shown.stdout.split()[:2] == public.split()


def test_export_can_be_encrypted(operator: Operator, tmp_path: Path) -> None:
    operator.terok("ssh", "generate", "mine")
    (tmp_path / "pass").write_text(PASSPHRASE)
    text = operator.terok("ssh", "export", "mine", "--passphrase-file", str(tmp_path / "pass"))
    (tmp_path / "out").write_text(text)
    (tmp_path / "out").chmod(0o600)
    for passphrase, code in ((PASSPHRASE, 0), ("wrong", 255)):
        read = ["ssh-keygen", "-y", "-P", passphrase, "-f", str(tmp_path / "out")]
        assert subprocess.run(read, capture_output=True, timeout=30).returncode == code


def test_export_never_overwrites(operator: Operator, tmp_path: Path) -> None:
    operator.terok("ssh", "generate", "mine")
    (tmp_path / "out").write_text("precious")
    words = ["ssh", "export", "mine", "--no-passphrase", "--output", str(tmp_path / "out")]
    assert "File exists" in operator.terok(*words, code=Exit.USAGE)
    assert (tmp_path / "out").read_text() == "precious"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["-t", "rsa", "-b", "1024"], "2048"),
        (["-t", "dsa"], "not supported"),
    ],
    ids=["short RSA", "DSA"],
)
def test_weak_keys_are_refused(operator: Operator, tmp_path: Path, words: list[str], reason: str) -> None:
    made = subprocess.run(
        ["ssh-keygen", "-q", "-N", "", "-f", str(tmp_path / "id"), *words], capture_output=True, timeout=60
    )
    if made.returncode != 0:
        assert "dsa" in words  # OpenSSH 10 does not make them any more
        return
    message = operator.terok("ssh", "import", str(tmp_path / "id"), code=Exit.USAGE)
    assert reason in message or "not a private key that terok reads" in message


def test_security_keys_are_refused_with_the_reason(operator: Operator, tmp_path: Path) -> None:
    from base64 import b64encode

    from terok_host.sidecars.ssh.wire import string

    # an OpenSSH key file (PROTOCOL.key) whose public key is of a security-key type; making one takes the hardware
    public = string("sk-ssh-ed25519@openssh.com") + string(bytes(32)) + string("ssh:")
    body = b"openssh-key-v1\0" + string("none") + string("none") + string("") + b"\0\0\0\1" + string(public)
    text = b64encode(body + string(bytes(128))).decode()
    file = tmp_path / "id_ed25519_sk"
    file.write_text(f"-----BEGIN OPENSSH PRIVATE KEY-----\n{text}\n-----END OPENSSH PRIVATE KEY-----\n")
    assert "security key" in operator.terok("ssh", "import", str(file), code=Exit.REFUSED)


def test_wrong_passphrase_public_half_and_garbage(operator: Operator, tmp_path: Path) -> None:
    keygen(tmp_path / "id", "-t", "ed25519", passphrase=PASSPHRASE)
    (tmp_path / "pass").write_text("wrong")
    words = ["ssh", "import", str(tmp_path / "id")]
    wrong = operator.terok(*words, "--passphrase-file", str(tmp_path / "pass"), code=Exit.USAGE)
    assert "passphrase is wrong" in wrong
    assert "public key" in operator.terok("ssh", "import", str(tmp_path / "id.pub"), code=Exit.USAGE)
    (tmp_path / "text").write_text("no key\n")
    assert "not a private key" in operator.terok("ssh", "import", str(tmp_path / "text"), code=Exit.USAGE)
    assert "No such file" in operator.terok("ssh", "import", str(tmp_path / "missing"), code=Exit.USAGE)


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa-256", "ecdsa-384", "ecdsa-521", "rsa"])
def test_generate(operator: Operator, kind: str) -> None:
    found = operator.json("ssh", "generate", "mine", "--type", kind, "--bits", "2048", "--comment", "at work")
    assert found["comment"] == "at work"
    assert found["scopes"] == []
    line = f"{found['public']} {found['comment']}\n"
    shown = subprocess.run(["ssh-keygen", "-l", "-f", "-"], input=line, capture_output=True, text=True, check=True)
    assert shown.stdout.split()[1] == found["fingerprint"]


def test_no_secret_is_ever_shown_or_stored_in_the_clear(operator: Operator, tmp_path: Path) -> None:
    keygen(tmp_path / "id", "-t", "ed25519")
    operator.terok("ssh", "import", str(tmp_path / "id"), "--scope", "work")
    operator.terok("ssh", "export", "work", "--no-passphrase", "--output", str(tmp_path / "plain"))
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_ssh_private_key((tmp_path / "plain").read_bytes(), None)
    seed = key.private_bytes(serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption())
    for path in (tmp_path / "operator").rglob("*"):
        assert not path.is_file() or seed not in path.read_bytes(), path


def test_keys_and_scopes_are_many_to_many(operator: Operator) -> None:
    operator.terok("ssh", "generate", "one", "--scope", "a")
    operator.terok("ssh", "generate", "two", "--scope", "a", "--scope", "b", "--default")
    assert [key["name"] for key in operator.json("ssh", "list", "--scope", "a")] == ["two", "one"]
    operator.terok("ssh", "link", "one", "--scope", "b", "--default")
    assert [key["name"] for key in operator.json("ssh", "list", "--scope", "b")] == ["one", "two"]
    assert [key["default"] for key in operator.json("ssh", "list")] == [["b"], ["a"]]
    operator.terok("ssh", "unlink", "two", "--scope", "a")
    assert [key["name"] for key in operator.json("ssh", "list", "--scope", "a")] == ["one"]
    with Signer(operator, "b") as signer:
        listed = subprocess.run(["ssh-add", "-l"], env=signer.env, capture_output=True, text=True, timeout=30)
        assert [line.split()[2] for line in listed.stdout.splitlines()] == ["one", "two"]


def test_rename_and_remove(operator: Operator) -> None:
    operator.terok("ssh", "generate", "old", "--scope", "work")
    public = operator.terok("ssh", "pub", "old").split()[1]
    operator.terok("ssh", "rename", "old", "new", "--comment", "better")
    assert operator.terok("ssh", "pub", "new").split()[1:] == [public, "better"]
    assert "no SSH key" in operator.terok("ssh", "pub", "old", code=Exit.NOT_FOUND)
    operator.terok("ssh", "remove", "new")
    assert operator.json("ssh", "list") == []
    assert "no SSH key" in operator.terok("ssh", "remove", "new", code=Exit.NOT_FOUND)


def test_names_and_keys_are_unique(operator: Operator, tmp_path: Path) -> None:
    keygen(tmp_path / "id", "-t", "ed25519")
    operator.terok("ssh", "import", str(tmp_path / "id"))
    assert "already stored" in operator.terok("ssh", "import", str(tmp_path / "id"), "again", code=Exit.REFUSED)
    assert "already" in operator.terok("ssh", "generate", "id", code=Exit.REFUSED)
    operator.terok("ssh", "generate", "../x", code=Exit.USAGE)
    operator.terok("ssh", "generate", code=Exit.USAGE)


def test_the_vault_is_created_once_and_its_recovery_key_shown_once(operator: Operator) -> None:
    first = subprocess.run(
        [operator.program, "ssh", "generate", "one"], env=operator.env, capture_output=True, text=True, timeout=60
    )
    assert first.stderr.count("recovery key") == 1
    second = subprocess.run(
        [operator.program, "ssh", "generate", "two"], env=operator.env, capture_output=True, text=True, timeout=60
    )
    assert "recovery key" not in second.stderr


def test_trust_from_known_hosts(operator: Operator, tmp_path: Path) -> None:
    operator.terok("ssh", "generate", "work", "--scope", "work")
    good, other, old = (keygen(tmp_path / name, "-t", "ed25519") for name in ("good", "other", "old"))
    known = operator.base / ".ssh" / "known_hosts"
    known.parent.mkdir()
    known.write_text(
        f"# a comment\nforge.example,192.0.2.1 {good}\n*.other.example,!bad.other.example {other}\n"
        f"[forge.example]:2222 {other}\nforge.example {old}\n@revoked * {old}\n@cert-authority forge.example {other}\n"
    )
    pinned = operator.json("ssh", "trust", "forge.example")
    assert [each["key"] for each in pinned["keys"]] == [good]
    assert [each["key"] for each in operator.json("ssh", "trust", "forge.example:2222")["keys"]] == [other]
    assert [each["key"] for each in operator.json("ssh", "trust", "a.other.example")["keys"]] == [other]
    assert "known_hosts" in operator.terok("ssh", "trust", "bad.other.example", code=Exit.NOT_FOUND)
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(known)], check=True, capture_output=True, timeout=30)
    assert [each["key"] for each in operator.json("ssh", "trust", "forge.example")["keys"]] == [good]
    policy = operator.json("ssh", "list")[0]["policy"]["work"]
    assert set(policy["hosts"]) == {"forge.example", "[forge.example]:2222", "a.other.example"}
    operator.terok("ssh", "untrust", "forge.example")
    assert set(operator.json("ssh", "list")[0]["policy"]["work"]["hosts"]) == {
        "[forge.example]:2222",
        "a.other.example",
    }


def test_trust_a_given_key(operator: Operator, tmp_path: Path) -> None:
    operator.terok("ssh", "generate", "work", "--scope", "work")
    one, two = (keygen(tmp_path / name, "-t", "ed25519") for name in ("one", "two"))
    lines = [f"host.example {one}", two, str(tmp_path / "one.pub")]
    for line, expected in zip(lines, (one, two, one), strict=True):
        assert operator.json("ssh", "trust", "host.example", "--key", line)["keys"][0]["key"] == expected
    operator.terok("ssh", "trust", "host.example", "--key", f"elsewhere.example {one}", code=Exit.USAGE)
    operator.terok("ssh", "trust", "host.example", "--key", "ssh-ed25519 AAAA", code=Exit.USAGE)
    fingerprint = operator.json("ssh", "trust", "host.example", "--key", two)["keys"][0]["fingerprint"]
    words = ["ssh", "trust", "host.example", "--key", one, "--fingerprint", fingerprint]
    assert "none of these fingerprints" in operator.terok(*words, code=Exit.REFUSED)


def test_policy(operator: Operator) -> None:
    operator.terok("ssh", "generate", "work", "--scope", "work")
    assert operator.json("ssh", "policy", "work") == {"name": "work", "scope": "work", "policy": {}}
    assert "no login is signed" in operator.terok("ssh", "policy", "work")
    words = ["--namespace", "file", "--user", "deploy", "--no-user", "git", "--rate", "5", "--require-bind", "no"]
    changed = operator.json("ssh", "policy", "work", *words)["policy"]
    assert changed == {"namespaces": ["git", "file"], "users": ["deploy"], "rate": 5, "require_bind": False}
    assert operator.json("ssh", "policy", "work", "--reset")["policy"] == {}
    operator.terok("ssh", "policy", "work", "--rate", "-1", code=Exit.USAGE)
    operator.terok("ssh", "policy", "work", "--scope", "other", code=Exit.NOT_FOUND)


def test_more_than_one_scope_has_to_be_chosen(operator: Operator, tmp_path: Path) -> None:
    operator.terok("ssh", "generate", "one", "--scope", "a")
    operator.terok("ssh", "generate", "two", "--scope", "b")
    key = keygen(tmp_path / "host", "-t", "ed25519")
    assert "a|b" in operator.terok("ssh", "trust", "host.example", "--key", key, code=Exit.USAGE)
    assert operator.json("ssh", "trust", "host.example", "--key", key, "--scope", "b")["names"] == ["two"]


def test_agent_for_the_operators_shell(short_dir: Path) -> None:
    operator = Operator(short_dir / "operator")
    public = operator.terok("ssh", "generate", "work", "--scope", "work")
    assert operator.terok("ssh", "agent", "--scope", "work", "--", "ssh-add", "-L") == public
    audit = operator.data / "agents/work/audit.jsonl"
    assert json.loads(audit.read_text().splitlines()[-1])["event"] == "list"
    code = operator.terok("ssh", "agent", "--scope", "work", "--", "sh", "-c", "echo no >&2; exit 7", code=7)
    assert code == "no\n"
    assert [path.name for path in (operator.data / "agents/work").iterdir() if "sidecar" in path.name] == []


def test_agent_serves_until_it_is_stopped(short_dir: Path) -> None:
    operator = Operator(short_dir / "operator")
    public = operator.terok("ssh", "generate", "work", "--scope", "work")
    words = [operator.program, "ssh", "agent", "--scope", "work"]
    with subprocess.Popen(words, env=operator.env, stdout=subprocess.PIPE, text=True) as serving:
        assert serving.stdout is not None
        variable = serving.stdout.readline().split(";")[0]
        env = {**operator.env, "SSH_AUTH_SOCK": variable.removeprefix("SSH_AUTH_SOCK=")}
        listed = subprocess.run(["ssh-add", "-L"], env=env, capture_output=True, text=True, timeout=30)
        assert listed.stdout == public
        serving.terminate()
        assert serving.wait(10) == 0
    assert not Path(env["SSH_AUTH_SOCK"]).exists()
