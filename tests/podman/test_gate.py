"""The gate from inside real containers: git in the container, stand-in forges outside, no credential in between."""

from __future__ import annotations

import base64
import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from terok_host.sidecars.store import keys
from terok_host.supervisor.ground.layout import GateHome
from tests.lab.house import House
from tests.standins.forge import PASSWORD, HttpsForge, SshForge
from tests.standins.gate import git, make_upstream
from tests.standins.stores import unlocked

IDENTITY = (
    "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@x GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@x; cd /tmp; set -e; "
)


def text(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """A house whose scope `web` has a login for the HTTPS forge, and `deep` a key for the SSH one."""
    made = House.build()
    keys.create_vault(made.layout)
    made.podman("run", "--rm", made.image, "true")
    yield made
    made.destroy()


@pytest.fixture(scope="module")
def https(house: House) -> Iterator[HttpsForge]:
    root = house.base / "forge"
    root.mkdir()
    for name in ("online", "keeping"):
        git("config", "http.receivepack", "true", cwd=make_upstream(root / f"{name}.git"))
    made = HttpsForge(root, house.base)
    with unlocked(house.layout) as store:
        for scope in ("online", "keeping"):
            store.put("credential", scope, "localhost", PASSWORD.encode(), {"auth": "basic"})
    for scope, mode in (("online", "online"), ("keeping", "gatekeeping")):
        options = ["--ca-file", str(made.ca_file), "--mode", mode, "--refresh", "0"]
        house.terok("gate", "add", scope, f"{made.url}/{scope}.git", *options)
    yield made
    made.close()


def run(house: House, name: str, scope: str, script: str, *options: str, timeout: float = 110) -> str:
    """What a shell script prints, stderr with it, in a container of the scope."""
    flags = ["--scope", scope, "--no-shield", *options]
    command = ["sh", "-c", f"exec 2>&1; {IDENTITY}{script}"]
    return house.terok("run", name, *flags, "--", house.image, *command, timeout=timeout).stdout


def tip(repo: Path, ref: str) -> str:
    return git("rev-parse", "--verify", "-q", ref, cwd=repo, check=False).stdout.strip()


def test_online_from_the_upstreams_own_url(house: House, https: HttpsForge, name: str) -> None:
    """Plain git, with upstream's URL and without any option, goes through the gate."""
    out = run(
        house,
        name,
        "online",
        f"git clone -q {https.url}/online.git w; cd w; git checkout -q -b {name}/x; "
        f"head -c 1000 /dev/urandom >new; git add new; git commit -q -m new; git push origin {name}/x; "
        "git rev-parse HEAD; git commit -q --amend -m newer; git push -q -f origin HEAD; git fetch -q; "
        f"git push origin HEAD:main || echo refused; git push -q origin --delete {name}/x; env",
    )
    lines = out.splitlines()
    assert f" * [new branch]      {name}/x -> {name}/x" in lines
    assert any("[remote rejected] HEAD -> main" in line for line in lines) and "refused" in lines
    assert PASSWORD not in out
    assert tip(https.root / "online.git", f"refs/heads/{name}/x") == ""
    lost = json.loads(house.terok("gate", "restore", "online", "--json").stdout)
    assert [each["ref"] for each in lost] == [f"refs/heads/{name}/x"] * 2
    house.terok("gate", "restore", "online", f"{name}/x")
    assert tip(https.root / "online.git", f"refs/heads/{name}/x") == lost[1]["tip"]
    audit = [json.loads(line) for line in Path(house.bundle(name).audit).read_text().splitlines()]
    assert [each["verdict"] for each in audit if each["source"] == "gate"] == [
        "accepted",
        "accepted",
        "refused",
        "accepted",
    ]


@pytest.mark.timeout(300)  # a busy machine needs minutes for what takes 20 s otherwise
def test_two_hundred_megabytes_both_ways(house: House, https: HttpsForge, name: str) -> None:
    out = run(
        house,
        name,
        "keeping",
        f"git clone -q http://127.0.0.1:9418/keeping.git w; cd w; git checkout -q -b {name}/big; "
        "git config core.bigFileThreshold 1m; git config core.compression 0; "
        "for n in 1 2 3 4; do head -c 52428800 /dev/urandom >big$n; done; git add .; git commit -q -m big; "
        f"sha1sum big3; git push -q origin HEAD; cd /tmp; rm -rf w; "
        f"git clone -q -b {name}/big http://127.0.0.1:9418/keeping.git /tmp/v; "
        "cd /tmp/v; sha1sum big3",
        timeout=280,
    )
    sums = [line.split()[0] for line in out.splitlines() if line.endswith("big3")]
    assert len(sums) == 2 and sums[0] == sums[1]


def test_gatekeeping_review(house: House, https: HttpsForge, name: str) -> None:
    repo = https.root / "keeping.git"
    out = run(
        house,
        name,
        "keeping",
        f"git clone -q --depth 1 http://127.0.0.1:9418/keeping.git w; cd w; git checkout -q -b {name}/x; "
        "echo hello >new; git add new; git commit -q -m new; git push origin HEAD; "
        "git tag t; git push origin t || true",
    )
    assert "waits for 'terok gate approve keeping" in out
    assert "[remote rejected] t -> t" in out
    assert tip(repo, f"refs/heads/{name}/x") == ""
    proposals = json.loads(house.terok("gate", "list", "keeping", "--json").stdout)["proposals"]
    (number,) = [str(each["number"]) for each in proposals if each["ref"] == f"refs/heads/{name}/x"]
    assert "+hello" in house.terok("gate", "diff", "keeping", number).stdout
    house.terok("gate", "approve", "keeping", number)
    assert git("show", f"{name}/x:new", cwd=repo).stdout == "hello\n"


def test_the_socket_and_the_token_of_this_container_alone(house: House, https: HttpsForge, name: str) -> None:
    target = "online.git/info/refs?service=git-upload-pack"
    ask = "curl -s -o /dev/null -w '%{http_code} '"
    out = run(
        house,
        name,
        "online",
        f'{ask} --unix-socket $TEROK_GATE_SOCKET -u "$TEROK_GATE_TOKEN:" http://gate/{target}; '
        f'{ask} -H "Authorization: Bearer $TEROK_GATE_TOKEN" http://127.0.0.1:9418/{target}; '
        f"{ask} http://127.0.0.1:9418/{target}; {ask} -u wrong: http://127.0.0.1:9418/{target}; "
        f'{ask} -u "$TEROK_GATE_TOKEN:" http://127.0.0.1:9418/{target.replace("online", "keeping")}',
    )
    assert out.split() == ["200", "200", "401", "401", "404"]


def test_without_a_gate_git_finds_nobody(house: House, https: HttpsForge, name: str) -> None:
    out = run(house, name, "online", "env; git ls-remote http://127.0.0.1:9418/online.git || echo nobody", "--no-gate")
    assert "nobody" in out and "TEROK_GATE_TOKEN" not in out


def test_over_ssh(house: House, name: str) -> None:
    root = house.base / "ssh-forge"
    root.mkdir()
    repo = make_upstream(root / "deep.git")
    key = Ed25519PrivateKey.generate()
    seed, public = key.private_bytes_raw(), key.public_key().public_bytes_raw()
    blob = text(b"ssh-ed25519") + text(public)
    with unlocked(house.layout) as store:
        meta = {"scopes": ["deep"], "type": "ssh-ed25519", "public": base64.b64encode(blob).decode()}
        store.put("ssh-key", "", "deploy", blob + text(seed + public), meta)
    forge = SshForge(root, house.base / "sshd", "ssh-ed25519 " + base64.b64encode(blob).decode())
    try:
        options = ["--mode", "online", "--host-key", forge.host_key]
        house.terok("gate", "add", "deep", f"{forge.url}/deep.git", *options)
        out = run(
            house,
            name,
            "deep",
            f"git clone -q http://127.0.0.1:9418/deep.git w; cd w; git checkout -q -b {name}/x; "
            "echo hello >new; git add new; git commit -q -m new; git push origin HEAD",
        )
        assert "[new branch]" in out
        assert git("show", f"{name}/x:new", cwd=repo).stdout == "hello\n"
    finally:
        forge.close()


def test_two_containers_push_at_the_same_time(house: House, https: HttpsForge, name: str) -> None:
    script = (
        "git clone -q http://127.0.0.1:9418/online.git w; cd w; for n in 1 2 3 4 5; do "
        "git checkout -q -b {0}/$n; echo $n >{0}-$n; git add .; git commit -q -m $n; git push -q origin HEAD; done"
    )
    names = [f"{name}-{letter}" for letter in "ab"]
    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda each: run(house, each, "online", script.format(each)), names))
        for each in names:
            assert all(tip(https.root / "online.git", f"refs/heads/{each}/{n}") for n in range(1, 6))
    finally:
        for each in names:
            house.terok("cleanup", each)


@pytest.mark.timeout(300)
def test_a_gate_that_is_killed_in_the_middle_of_a_push(house: House, https: HttpsForge, name: str) -> None:
    """That push fails, nothing of it is kept, and the next one arrives."""
    house.terok("run", name, "--scope", "online", "--no-shield", "--", "--detach", house.image, "sleep", "1000")
    commit = (
        f"{IDENTITY}git clone -q http://127.0.0.1:9418/online.git w; cd w; git checkout -q -b {name}/x; "
        "git config core.bigFileThreshold 1m; git config core.compression 0; "
        "for n in 1 2 3; do head -c 52428800 /dev/urandom >big$n; done; git add .; git commit -q -m big; "
        "git rev-parse HEAD"
    )
    wanted = house.podman("exec", name, "sh", "-c", commit).stdout.strip()
    incoming = Path(GateHome.of(house.layout.gate, "online").incoming(name))
    push = f"cd /tmp/w && git push -q origin {name}/x"
    with ThreadPoolExecutor(1) as pool:
        pushed = pool.submit(house.podman, "exec", name, "sh", "-c", push, check=False, timeout=140)
        while not (arriving := list(incoming.iterdir()) if incoming.exists() else []):
            assert not pushed.done()
        record = json.loads(Path(house.bundle(name).record).read_text())
        os.kill(record["sidecars"]["gate"]["pid"], signal.SIGKILL)
        assert pushed.result().returncode != 0
    assert tip(https.root / "online.git", f"refs/heads/{name}/x") == ""
    house.podman("exec", name, "sh", "-c", push, timeout=140)
    assert tip(https.root / "online.git", f"refs/heads/{name}/x") == wanted
    assert not {each.name for each in arriving} & {each.name for each in incoming.iterdir()}


def test_an_upstream_that_is_gone(house: House, name: str) -> None:
    """What the mirror has can be read on, and a push is refused with the reason."""
    root = house.base / "gone-forge"
    root.mkdir()
    git("config", "http.receivepack", "true", cwd=make_upstream(root / "gone.git"))
    forge = HttpsForge(root, house.base)
    with unlocked(house.layout) as store:
        store.put("credential", "gone", "localhost", PASSWORD.encode(), {"auth": "basic"})
    options = ["--ca-file", str(forge.ca_file), "--mode", "online", "--refresh", "0"]
    house.terok("gate", "add", "gone", f"{forge.url}/gone.git", *options)
    forge.close()
    out = run(
        house,
        name,
        "gone",
        "git clone -q http://127.0.0.1:9418/gone.git w; cd w; git log -1 --format=%Tcloned; "
        f"git checkout -q -b {name}/x; "
        "echo hello >new; git add new; git commit -q -m new; git push origin HEAD || echo refused",
    )
    assert "cloned" in out and "refused" in out
    assert "[remote rejected]" in out and "localhost" in out
