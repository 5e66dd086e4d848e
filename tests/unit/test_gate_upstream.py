"""Tests of both modes against stand-in forges: git over HTTPS with a login, and over SSH with the scope's key."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from terok_host.runtime.gate import hostkeys
from terok_host.sidecars.gate import config, review, state
from terok_host.sidecars.gate.forge import address, sync
from terok_host.sidecars.gate.policy import Policy
from terok_host.supervisor.ground.errors import Exit, TerokError
from tests.standins.forge import PASSWORD, HttpsForge, SshForge
from tests.standins.gate import Rig, commit, git, make_upstream
from tests.standins.stores import unlocked


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """Upstream's bare repository."""
    (tmp_path / "forge").mkdir()
    made = make_upstream(tmp_path / "forge" / "up.git")
    git("config", "http.receivepack", "true", cwd=made)
    return made


@pytest.fixture
def forge(tmp_path: Path, repo: Path) -> Iterator[HttpsForge]:
    """The HTTPS forge."""
    made = HttpsForge(repo.parent, tmp_path)
    yield made
    made.close()


def running(rig: Rig, url: str, **fields: Any) -> config.GateConfig:
    settings = rig.configure(url, **fields)
    sync.synchronise(rig.site, settings)
    rig.start()
    return settings


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    with unlocked(made.layout) as store:
        store.put("credential", "proj", "forge", PASSWORD.encode(), {"auth": "basic"})
    yield made
    made.stop()
    log = made.log.read_text() if made.log.exists() else ""
    assert PASSWORD not in log + everything_said(made)


def everything_said(rig: Rig) -> str:
    """All that was written about pushes."""
    log = Path(rig.home.log)
    return str(rig.audit()) + (log.read_text() if log.exists() else "")


@pytest.fixture
def online(rig: Rig, forge: HttpsForge) -> Rig:
    """A running gate in the mode online."""
    running(rig, f"{forge.url}/up.git", credential="forge", ca_file=str(forge.ca_file), mode="online")
    return rig


@pytest.fixture
def gatekeeping(rig: Rig, forge: HttpsForge) -> Rig:
    """A running gate in the mode gatekeeping."""
    running(rig, f"{forge.url}/up.git", credential="forge", ca_file=str(forge.ca_file))
    return rig


def clone(rig: Rig, name: str = "work") -> Path:
    path = rig.base / name
    git("clone", "-q", rig.url(), path, cwd=rig.base)
    git("checkout", "-q", "-b", f"agent/{name}", cwd=path)
    return path


def tips(repo: Path) -> dict[str, str]:
    out = git("for-each-ref", "--format=%(refname) %(objectname)", cwd=repo).stdout
    return dict(line.split(" ") for line in out.splitlines())


def ask_upstream_at_the_next_fetch(rig: Rig) -> None:
    """Let the mirror be old."""
    rig.configure_again(refresh_seconds=1)
    with state.State(rig.home) as kept:
        kept.tried = 0
        kept.save()


def said(_: str) -> None:
    """Where messages go that a test does not look at."""


# -- online --


def test_online_upstream_has_it_when_the_client_is_told(online: Rig, repo: Path, forge: HttpsForge) -> None:
    work = clone(online)
    tip = commit(work, "new")
    git("push", "-q", "origin", "agent/work", cwd=work)
    assert tips(repo)["refs/heads/agent/work"] == tip
    refs = online.refs()
    assert refs["refs/heads/agent/work"] == refs["refs/terok/upstream/heads/agent/work"] == tip
    assert all(authorization for method, _, authorization in forge.seen if method == "POST")
    git("reset", "-q", "--hard", "HEAD~1", cwd=work)
    other = commit(work, "other")
    git("push", "-q", "--force", "origin", "agent/work", cwd=work)
    assert tips(repo)["refs/heads/agent/work"] == other
    git("push", "-q", "--delete", "origin", "agent/work", cwd=work)
    assert "refs/heads/agent/work" not in tips(repo).keys() | online.refs().keys()
    assert git("ls-remote", "origin", "agent/work", cwd=work).stdout == ""


def test_online_a_rejection_of_upstream_is_the_clients(online: Rig, repo: Path) -> None:
    hook = repo / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'not on \033[31mfridays'\nexit 1\n")
    hook.chmod(0o755)
    work = clone(online)
    commit(work, "new")
    before = online.refs()
    done = git("push", "origin", "agent/work", cwd=work, check=False)
    assert done.returncode == 1
    assert "[remote rejected] agent/work -> agent/work (upstream: pre-receive hook declined)" in done.stderr
    assert "upstream: not on  [31mfridays" in done.stderr
    assert online.refs() == before


def test_online_upstream_that_moved_meanwhile_is_not_overwritten(online: Rig, repo: Path) -> None:
    work = clone(online)
    first = commit(work, "one")
    git("push", "-q", "origin", "agent/work", cwd=work)
    foreign = git("rev-parse", "main", cwd=repo).stdout.strip()
    git("update-ref", "refs/heads/agent/work", foreign, cwd=repo)
    commit(work, "two")
    done = git("push", "--force", "origin", "agent/work", cwd=work, check=False)
    assert done.returncode == 1 and "stale info" in done.stderr
    assert tips(repo)["refs/heads/agent/work"] == foreign
    assert online.refs()["refs/heads/agent/work"] == first


def test_online_with_upstream_down_nothing_changes_and_reading_goes_on(online: Rig, forge: HttpsForge) -> None:
    forge.close()
    ask_upstream_at_the_next_fetch(online)
    work = clone(online)
    commit(work, "new")
    before = online.refs()
    done = git("push", "origin", "agent/work", cwd=work, check=False)
    assert done.returncode == 1 and "upstream could not be reached" in done.stderr
    assert online.refs() == before
    assert "connect" in state.State.peek(online.home).error


def test_online_a_locked_vault_refuses_with_the_command(online: Rig) -> None:
    work = clone(online)
    commit(work, "new")
    os.rename(online.layout.vault_key, online.layout.vault_key + ".away")
    done = git("push", "origin", "agent/work", cwd=work, check=False)
    assert done.returncode == 1 and "terok vault unlock" in done.stderr
    os.rename(online.layout.vault_key + ".away", online.layout.vault_key)
    git("push", "-q", "origin", "agent/work", cwd=work)


def test_a_fetch_brings_news_from_upstream(online: Rig, repo: Path) -> None:
    work = clone(online)
    tip = commit(work, "theirs")
    git("push", "-q", str(repo), "HEAD:main", cwd=work)
    ask_upstream_at_the_next_fetch(online)
    git("fetch", "-q", "origin", cwd=work)
    assert git("rev-parse", "origin/main", cwd=work).stdout.strip() == tip


def test_the_credential_is_on_no_command_line_and_in_no_environment(online: Rig, repo: Path) -> None:
    """Upstream's hook looks at every process while the push is under way."""
    hook = repo / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(
        f"#!/bin/sh\nfor p in /proc/[0-9]*; do tr '\\0' '\\n' <$p/cmdline; tr '\\0' '\\n' <$p/environ; done "
        f">{online.base}/seen 2>/dev/null; true\n"
    )
    hook.chmod(0o755)
    work = clone(online)
    commit(work, "new")
    git("push", "-q", "origin", "agent/work", cwd=work)
    seen = (online.base / "seen").read_text(errors="replace")
    assert "git-remote-https" in seen or "remote-https" in seen
    assert PASSWORD not in seen


# -- gatekeeping --


def test_a_proposal_is_shown_approved_and_then_upstreams(gatekeeping: Rig, repo: Path) -> None:
    rig = gatekeeping
    work = clone(rig)
    tip = commit(work, "new", "hello\n", "say hello")
    done = git("push", "origin", "agent/work", cwd=work)
    assert "remote: proposal 1: create refs/heads/agent/work waits for 'terok gate approve proj 1'" in done.stderr
    assert "refs/heads/agent/work" not in tips(repo)
    settings = config.load(rig.home)
    proposal = state.State.peek(rig.home).proposals[1]
    commits, patch = review.show(rig.home, settings, proposal)
    assert commits.endswith("a: say hello") and "+hello" in patch and "content 0" not in patch
    review.approve(rig.site, settings, 1, said)
    assert tips(repo)["refs/heads/agent/work"] == tip
    assert state.State.peek(rig.home).proposals == {}
    assert not any(ref.startswith("refs/terok/proposals/") for ref in rig.refs())
    with pytest.raises(TerokError) as caught:
        review.approve(rig.site, settings, 1, said)
    assert caught.value.code == Exit.NOT_FOUND


def test_a_newer_push_takes_another_number(gatekeeping: Rig) -> None:
    """Whoever approves a number gets what was shown under it, never what was pushed after the review."""
    rig = gatekeeping
    work = clone(rig)
    commit(work, "one")
    git("push", "-q", "origin", "agent/work", cwd=work)
    tip = commit(work, "two")
    git("push", "-q", "origin", "agent/work", cwd=work)
    proposals = state.State.peek(rig.home).proposals
    assert [(each.number, each.new) for each in proposals.values()] == [(2, tip)]
    with pytest.raises(TerokError, match="newer push"):
        review.approve(rig.site, config.load(rig.home), 1, said)


def test_approve_is_compare_and_swap(gatekeeping: Rig, repo: Path) -> None:
    rig = gatekeeping
    rig.configure_again(policy=Policy(update=("refs/heads/stable",)))
    work = clone(rig)
    git("checkout", "-q", "stable", cwd=work)
    tip = commit(work, "mine")
    git("push", "-q", "origin", "stable", cwd=work)
    theirs = tips(repo)["refs/heads/main"]
    git("update-ref", "refs/heads/stable", theirs, cwd=repo)
    settings = config.load(rig.home)
    with pytest.raises(TerokError) as caught:
        review.approve(rig.site, settings, 1, said)
    assert caught.value.code == Exit.REFUSED and "stale info" in caught.value.what
    assert tips(repo)["refs/heads/stable"] == theirs
    assert 1 in state.State.peek(rig.home).proposals
    sync.synchronise(rig.site, settings)
    assert git("ls-remote", "origin", "stable", cwd=work).stdout.startswith(tip)
    git("fetch", "-q", "origin", cwd=work)
    git("rebase", "-q", "origin/main", cwd=work)
    git("push", "-q", "--force", "origin", "stable", cwd=work)  # amends its proposal: for upstream a fast-forward
    review.approve(rig.site, settings, 2, said)
    assert tips(repo)["refs/heads/stable"] == git("rev-parse", "HEAD", cwd=work).stdout.strip() != tip
    assert rig.refs()["refs/heads/stable"] == tips(repo)["refs/heads/stable"]


def test_reject_takes_the_branch_back_and_restore_brings_it_again(gatekeeping: Rig, repo: Path) -> None:
    rig = gatekeeping
    work = clone(rig)
    tip = commit(work, "new")
    git("push", "-q", "origin", "agent/work", cwd=work)
    review.reject(rig.home, 1)
    assert "refs/heads/agent/work" not in rig.refs()
    settings = config.load(rig.home)
    lost = review.restore(rig.site, settings, "agent/work", said)
    assert lost.tip == tip == rig.refs()["refs/heads/agent/work"]
    (proposal,) = state.State.peek(rig.home).proposals.values()
    assert (proposal.source, proposal.ref, proposal.new) == (state.OPERATOR, "refs/heads/agent/work", tip)
    review.approve(rig.site, settings, proposal.number, said)
    assert tips(repo)["refs/heads/agent/work"] == tip


def test_a_deletion_is_proposed_too(gatekeeping: Rig, repo: Path) -> None:
    rig = gatekeeping
    settings = config.load(rig.home)
    work = clone(rig)
    tip = commit(work, "new")
    git("push", "-q", "origin", "agent/work", cwd=work)
    review.approve(rig.site, settings, 1, said)
    git("push", "-q", "--delete", "origin", "agent/work", cwd=work)
    proposal = state.State.peek(rig.home).proposals[2]
    assert proposal.kind == "delete" and "refs/heads/agent/work" in tips(repo)
    commits, patch = review.show(rig.home, settings, proposal)
    assert commits.startswith("- ") and patch == ""
    review.approve(rig.site, settings, 2, said)
    assert "refs/heads/agent/work" not in tips(repo)
    assert tip in [oid for ref, oid in rig.refs().items() if ref.startswith("refs/terok/kept/")]


# -- upstream moves --


def test_upstream_rewritten_and_deleted_waits_for_the_operator(gatekeeping: Rig, repo: Path) -> None:
    rig, before = gatekeeping, gatekeeping.refs()
    settings = config.load(rig.home)
    old = tips(repo)["refs/heads/main"]
    rewritten = git("commit-tree", "-m", "rewritten", "main^{tree}", cwd=repo).stdout.strip()
    git("update-ref", "refs/heads/main", rewritten, cwd=repo)
    git("update-ref", "-d", "refs/heads/stable", cwd=repo)
    git("update-ref", "refs/heads/fresh", old, cwd=repo)
    sync.synchronise(rig.site, settings)
    refs = rig.refs()
    assert refs["refs/heads/main"] == old and refs["refs/heads/stable"] == before["refs/heads/stable"]
    assert refs["refs/heads/fresh"] == old
    waiting = {each.ref: each for each in state.State.peek(rig.home).proposals.values()}
    kinds = {ref: each.kind for ref, each in waiting.items()}
    assert kinds == {"refs/heads/main": "force", "refs/heads/stable": "delete"}
    assert sync.synchronise(rig.site, settings) == []
    assert len(state.State.peek(rig.home).proposals) == 2
    review.approve(rig.site, settings, waiting["refs/heads/main"].number, said)
    review.reject(rig.home, waiting["refs/heads/stable"].number)
    refs = rig.refs()
    assert refs["refs/heads/main"] == rewritten and "refs/heads/stable" in refs
    assert old in [oid for ref, oid in refs.items() if ref.startswith("refs/terok/kept/")]
    assert sync.synchronise(rig.site, settings) == []
    assert state.State.peek(rig.home).proposals == {}


def test_a_proposal_that_upstream_already_has_is_closed(gatekeeping: Rig, repo: Path) -> None:
    rig = gatekeeping
    work = clone(rig)
    commit(work, "new")
    git("push", "-q", "origin", "agent/work", cwd=work)
    git("push", "-q", str(repo), "HEAD:agent/work", cwd=work)
    sync.synchronise(rig.site, config.load(rig.home))
    assert state.State.peek(rig.home).proposals == {}


def test_restore_online_gives_upstream_its_branch_back(online: Rig, repo: Path) -> None:
    work = clone(online)
    tip = commit(work, "precious")
    git("push", "-q", "origin", "agent/work", cwd=work)
    git("reset", "-q", "--hard", "HEAD~1", cwd=work)
    commit(work, "worse")
    git("push", "-q", "--force", "origin", "agent/work", cwd=work)
    review.restore(online.site, config.load(online.home), "agent/work", said)
    assert tips(repo)["refs/heads/agent/work"] == tip == online.refs()["refs/heads/agent/work"]


# -- credentials --


def test_a_wrong_credential_is_said_and_never_asked_for(rig: Rig, forge: HttpsForge) -> None:
    with unlocked(rig.layout) as store:
        store.put("credential", "proj", "forge", b"wrong", {"auth": "basic"})
    settings = rig.configure(f"{forge.url}/up.git", credential="forge", ca_file=str(forge.ca_file))
    with pytest.raises(TerokError, match="Authentication failed|could not read") as caught:
        sync.synchronise(rig.site, settings)
    assert "terok vault list" in caught.value.fix
    rig.start()


def test_an_unknown_certificate_is_refused(rig: Rig, forge: HttpsForge) -> None:
    settings = rig.configure(f"{forge.url}/up.git", credential="forge")
    with pytest.raises(TerokError, match="certificate"):
        sync.synchronise(rig.site, settings)
    assert all(not authorization for _, _, authorization in forge.seen)
    rig.start()


@pytest.fixture
def ssh(tmp_path: Path, repo: Path, rig: Rig) -> Iterator[SshForge]:
    """The SSH forge, with the scope's key let in and its host key pinned."""
    key = Ed25519PrivateKey.generate()
    seed, public = key.private_bytes_raw(), key.public_key().public_bytes_raw()

    def text(data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + data

    private = text(b"ssh-ed25519") + text(public) + text(seed + public)
    with unlocked(rig.layout) as store:
        store.put("ssh-key", "", "deploy", private, {"scopes": ["proj"], "type": "ssh-ed25519"})
    import base64

    line = "ssh-ed25519 " + base64.b64encode(text(b"ssh-ed25519") + text(public)).decode()
    made = SshForge(repo.parent, tmp_path / "sshd", line)
    yield made
    made.close()


def test_over_ssh_with_the_scopes_key(rig: Rig, ssh: SshForge, repo: Path) -> None:
    url = f"{ssh.url}/up.git"
    os.makedirs(rig.home.root)
    place = address.parse_url(url)
    hostkeys.pin(rig.home, place, hostkeys.choose(place, ssh.host_key))
    running(rig, url, mode="online")
    work = clone(rig)
    tip = commit(work, "new")
    git("push", "-q", "origin", "agent/work", cwd=work)
    assert tips(repo)["refs/heads/agent/work"] == tip
    agents = subprocess.run(["pgrep", "-f", "terok-gate-"], capture_output=True, text=True)
    assert agents.stdout == ""


def test_another_host_key_is_refused(rig: Rig, ssh: SshForge) -> None:
    url = f"{ssh.url}/up.git"
    place = address.parse_url(url)
    other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
    settings = rig.configure(url)
    hostkeys.pin(rig.home, place, hostkeys.choose(place, other))
    with pytest.raises(TerokError, match="[Hh]ost key verification failed"):
        sync.synchronise(rig.site, settings)
    rig.start()


def test_a_host_key_must_be_confirmed(ssh: SshForge) -> None:
    place = address.parse_url(f"{ssh.url}/up.git")
    mark = hostkeys.fingerprint(ssh.host_key.split()[1])
    with pytest.raises(TerokError) as caught:
        hostkeys.choose(place, "")
    assert caught.value.code == Exit.MANUAL and mark in caught.value.what and mark in caught.value.fix
    assert [" ".join(each) for each in hostkeys.choose(place, mark)] == [ssh.host_key]
    with pytest.raises(TerokError) as caught:
        hostkeys.choose(place, "SHA256:AAAA")
    assert caught.value.code == Exit.REFUSED


def test_a_container_sees_its_own_proposals_and_nobody_elses(gatekeeping: Rig, tmp_path: Path) -> None:
    rig = gatekeeping
    rig.configure_again(policy=Policy(create=("refs/heads/new", "refs/tags/*"), update=("refs/heads/stable",)))
    other = Rig(tmp_path, container="other")
    other.start()
    try:
        work = clone(rig)
        git("checkout", "-q", "stable", cwd=work)
        tip = commit(work, "mine")
        git("push", "-q", "origin", "stable", "HEAD:new", "HEAD:refs/tags/t", cwd=work)
        mine = git("ls-remote", rig.url(), cwd=tmp_path).stdout
        theirs = git("ls-remote", other.url(), cwd=tmp_path).stdout
        assert {line.split()[1] for line in mine.splitlines() if line.startswith(tip)} == {
            "refs/heads/stable", "refs/heads/new", "refs/tags/t",
        }  # fmt: skip
        assert tip not in theirs and "refs/heads/new" not in theirs
        again = tmp_path / "again"
        git("clone", "-q", "-b", "new", rig.url(), again, cwd=tmp_path)
        assert (again / "mine").exists()
        git("push", "-q", "origin", "--delete", "new", "t", cwd=work)  # takes what was never there back
        assert [each.ref for each in state.State.peek(rig.home).proposals.values()] == ["refs/heads/stable"]
    finally:
        other.stop()
