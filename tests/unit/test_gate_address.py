"""Tests of upstream URLs, and of what git says about a push to one."""

from __future__ import annotations

import subprocess

import pytest

from terok_host.runtime.gate import hostkeys
from terok_host.sidecars.gate.forge import remote
from terok_host.sidecars.gate.forge.address import parse_url, spellings
from terok_host.sidecars.roster.agents import git_env
from terok_host.supervisor.ground.errors import Exit, TerokError


def test_known_fingerprint() -> None:
    key = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
    assert hostkeys.fingerprint(key) == "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"


@pytest.mark.parametrize(
    ("url", "kind", "host", "port"),
    [
        ("https://forge.test/a/b.git", "https", "forge.test", 0),
        ("https://forge.test:8443/a", "https", "forge.test", 8443),
        ("ssh://git@forge.test:2222/a", "ssh", "forge.test", 2222),
        ("git@forge.test:a/b.git", "ssh", "forge.test", 0),
        ("ssh://git@[::1]:22/a", "ssh", "[::1]", 22),
        ("/srv/a.git", "file", "", 0),
        ("http://127.0.0.1:8000/a", "http", "127.0.0.1", 8000),
    ],
)
def test_upstream_urls(url: str, kind: str, host: str, port: int) -> None:
    found = parse_url(url)
    assert (found.kind, found.host, found.port) == (kind, host, port)


@pytest.mark.parametrize(
    "url",
    [
        "https://user:secret@forge.test/a",
        "https://token@forge.test/a",
        "ssh://git:secret@forge.test/a",
        "http://forge.test/a",
        "git://forge.test/a",
        "ext::sh -c id",
        "--upload-pack=id",
        "-oProxyCommand=id:x",
        "ssh://-oProxyCommand=id/x",
        "https://forge.test /a",
        "https://forge.test/a\n",
        "",
        "forge.test/a",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(TerokError) as caught:
        parse_url(url)
    assert caught.value.code == Exit.USAGE and "secret" not in str(caught.value)


def test_upstreams_report_is_understood() -> None:
    text = (
        "To https://forge.test/a\n"
        "*\tabc:refs/heads/new\t[new branch]\n"
        " \tabc:refs/heads/ff\tabc..def\n"
        "+\tabc:refs/heads/forced\tabc...def (forced update)\n"
        "-\t:refs/heads/gone\t[deleted]\n"
        "!\tabc:refs/heads/no\t[remote rejected] (protected branch (by a rule))\n"
        "!\tabc:refs/heads/stale\t[rejected] (stale info)\n"
        "Done\n"
    )
    assert remote.parse_porcelain(text) == {
        "refs/heads/new": "",
        "refs/heads/ff": "",
        "refs/heads/forced": "",
        "refs/heads/gone": "",
        "refs/heads/no": "upstream: protected branch (by a rule)",
        "refs/heads/stale": "upstream: stale info",
    }


@pytest.mark.parametrize("upstream", ["https://forge.test/me/project.git", "git@forge.test:me/project"])
@pytest.mark.parametrize("ssh", [True, False])
def test_git_takes_every_spelling_to_the_gate(upstream: str, ssh: bool) -> None:
    gate = "http://127.0.0.1:9418/work.git"
    environ = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    environ |= git_env([(f"url.{gate}.insteadOf", spelling) for spelling in spellings(upstream, ssh=ssh)])

    def leads_to(url: str) -> str:
        words = ["git", "ls-remote", "--get-url", url]
        return subprocess.run(words, env=environ, capture_output=True, text=True, timeout=20, check=True).stdout.strip()

    assert leads_to("https://forge.test/me/project") == leads_to("https://forge.test/me/project.git") == gate
    for url in ("git@forge.test:me/project.git", "ssh://git@forge.test/me/project"):
        own = upstream.startswith("git@") and url.startswith("git@")
        assert leads_to(url) == (gate if ssh or own else url)
    assert leads_to("https://forge.test/you/project") == "https://forge.test/you/project"
    # what begins alike is taken too, unless it is named: docs/gate.md
    other = "https://forge.test/me/project-docs"
    assert leads_to(other) == f"{gate}-docs"
    named = ["git", "-c", f"url.{other}.insteadOf={other}", "ls-remote", "--get-url", other]
    done = subprocess.run(named, env=environ, capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.strip() == other
