"""The signer from inside a real container: ssh, git and signatures with keys that never enter it."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import scope
from tests.lab.house import House
from tests.standins.dns import Resolver
from tests.standins.sshd import Sshd

PORT = 2222
KEY = "signer"
PLACES = "/bin /etc /home /root /run /tmp /usr /var"
WIRING = ("--scope", KEY, "--profiles", KEY)


@pytest.fixture(scope="module")
def sshd(house: House, resolver: Resolver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """An sshd at the allowed name's address, with its Ed25519 key pinned for the scope's key."""
    scope.furnish(house, scope=KEY, profile=KEY, allowed=[f"{scope.ALLOWED}:{PORT}"])
    base = tmp_path_factory.mktemp("sshd")  # this fixture may be made twice: tests move between workers
    public = house.terok("ssh", "pub", KEY).stdout
    with Sshd(base, public, address=resolver.records[scope.ALLOWED][0], port=PORT) as running:
        words = ["--key", running.host_key(), "--user", running.user, "--scope", KEY]
        house.terok("ssh", "trust", f"{scope.ALLOWED}:{PORT}", *words)
        yield running


@pytest.fixture
def container(house: House, name: str, sshd: Sshd) -> str:
    """A running container of the scope."""
    house.terok("run", name, *WIRING, "--", "--detach", house.image, "sleep", "1000")
    return name


def inside(house: House, name: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in the container, with git set up to sign and to use ssh with the pins that it finds there."""
    ssh = "ssh -o BatchMode=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    head = f"set -e; export HOME=/tmp GIT_SSH_COMMAND={shlex.quote(ssh)}; alias ssh={shlex.quote(ssh)}; cd /tmp\n"
    return house.podman("exec", name, "sh", "-c", head + script, check=False)


def audit(house: House, name: str) -> list[dict[str, Any]]:
    """The signer's lines in the container's audit."""
    lines = map(json.loads, Path(house.bundle(name).audit).read_text().splitlines())
    return [line for line in lines if line["source"] == "ssh"]


def test_ssh_and_git_over_ssh(house: House, container: str, sshd: Sshd, tmp_path: Path) -> None:
    house.run(["git", "init", "-q", "--bare", "-b", "main", str(tmp_path / "origin.git")])
    url = f"ssh://{sshd.user}@{scope.ALLOWED}:{PORT}{tmp_path}/origin.git"
    done = inside(
        house,
        container,
        f"""
        ssh -p {PORT} {sshd.user}@{scope.ALLOWED} echo in
        git clone -q {url} copy 2>/dev/null
        cd copy
        git config user.name Test; git config user.email me@example.test
        git config gpg.format ssh; git config gpg.ssh.defaultKeyCommand 'ssh-add -L'
        echo "me@example.test $(ssh-add -L)" >../allowed; git config gpg.ssh.allowedSignersFile ../allowed
        git commit -q -S --allow-empty -m signed
        git verify-commit HEAD 2>&1
        git push -q origin HEAD:main
        git fetch -q origin; git log --format=%s origin/main
        """,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[0] == "in"
    assert 'Good "git" signature' in done.stdout
    assert done.stdout.splitlines()[-1] == "signed"
    signed = [line for line in audit(house, container) if line["event"] == "sign"]
    assert {(line["verdict"], line["key"]) for line in signed} == {("allowed", KEY)}
    logins = [line for line in signed if line["user"]]
    assert {(line["host"], line["user"]) for line in logins} == {(f"[{scope.ALLOWED}]:{PORT}", sshd.user)}
    assert [line["namespace"] for line in signed if not line["user"]] == ["git"]


def test_scp_both_ways(house: House, container: str, sshd: Sshd, tmp_path: Path) -> None:
    options = "-q -o BatchMode=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile=/dev/null"
    there = f"{sshd.user}@{scope.ALLOWED}:{tmp_path}/there"
    script = f"""
        head -c 3000000 /dev/urandom >here
        scp {options} -P {PORT} here {there}
        scp {options} -P {PORT} {there} back
        cmp here back; sha256sum <back
        """
    done = inside(house, container, script)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split()[0] == hashlib.sha256((tmp_path / "there").read_bytes()).hexdigest()


def test_a_signature_made_inside_verifies_outside(house: House, container: str, tmp_path: Path) -> None:
    done = inside(
        house, container, "ssh-add -L >key.pub; printf text | ssh-keygen -Y sign -n git -f key.pub 2>/dev/null"
    )
    assert done.returncode == 0, done.stderr
    (tmp_path / "signature").write_text(done.stdout)
    (tmp_path / "allowed").write_text("me " + house.terok("ssh", "pub", KEY).stdout)
    words = ["ssh-keygen", "-Y", "verify", "-n", "git", "-I", "me", "-f", str(tmp_path / "allowed")]
    house.run([*words, "-s", str(tmp_path / "signature")], stdin="text")


def test_what_the_policy_does_not_allow(house: House, container: str, sshd: Sshd) -> None:
    namespace = inside(house, container, "ssh-add -L >key.pub; echo text | ssh-keygen -Y sign -n file -f key.pub")
    assert namespace.returncode != 0
    assert audit(house, container)[-1]["reason"] == "the namespace is not allowed"
    words = ["ssh", "trust", f"{scope.ALLOWED}:{PORT}", "--key", sshd.host_key(), "--scope", KEY]
    house.terok("ssh", "untrust", f"{scope.ALLOWED}:{PORT}", "--scope", KEY)
    try:
        unpinned = inside(house, container, f"ssh -p {PORT} {sshd.user}@{scope.ALLOWED} true")
        assert "Permission denied" in unpinned.stderr
        assert "not pinned" in audit(house, container)[-1]["reason"]
        house.terok(*words)  # for the default user, git
        other_user = inside(house, container, f"ssh -p {PORT} {sshd.user}@{scope.ALLOWED} true")
        assert "Permission denied" in other_user.stderr
        assert audit(house, container)[-1]["reason"] == "the user name is not allowed"
    finally:
        house.terok(*words, "--user", sshd.user)
    assert inside(house, container, f"ssh -p {PORT} {sshd.user}@{scope.ALLOWED} true").returncode == 0
    assert inside(house, container, "ssh-add -D").returncode != 0
    assert inside(house, container, "ssh-keygen -q -t ed25519 -N '' -f mine; ssh-add mine").returncode != 0


def test_nothing_of_the_key_is_in_the_container(house: House, container: str, tmp_path: Path) -> None:
    exported = tmp_path / "key"
    house.terok("ssh", "export", KEY, "--no-passphrase", "--output", str(exported))
    middle = exported.read_text().splitlines()[3]  # a line of the private half
    found = inside(
        house, container, f"ssh-add -l >/dev/null; env; grep -rl {shlex.quote(middle)} {PLACES} 2>/dev/null || true"
    )
    assert found.returncode == 0
    assert middle not in found.stdout
    assert [line for line in found.stdout.splitlines() if line.startswith("/")] == []
