"""The clients that agents use, the real ones, through the real vault process with the routes that we ship."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from terok_host.sidecars.roster import files as roster
from terok_host.sidecars.roster import model
from tests.standins import models, services, turns
from tests.standins.authority import Authority
from tests.standins.behaviours import secret_of
from tests.standins.upstream import Upstream
from tests.standins.vault import SECRET, Vault, auth, provider

Shipped = Callable[..., str]


@pytest.fixture
def shipped(vault: Vault, upstream: Upstream, authority: Authority) -> Shipped:
    """Adds a credential of a shipped provider that leads to the stand-in; returns its phantom token."""
    vault.write_routes({"p": provider("https://localhost:1")})
    roster.write_routes(vault.layout)

    def add(name: str, **meta: Any) -> str:
        url = f"https://localhost:{upstream.port}"
        return vault.add(name, upstream=url, ca_bundle=authority.file, allow_private=True, **meta)

    return add


def run(*argv: str, env: dict[str, str] | None = None, cwd: Path | None = None, stdin: str = "") -> str:
    """Run a client without the caller's configuration and return what it printed."""
    clean = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": "/nonexistent", **(env or {})}
    done = subprocess.run(argv, env=clean, cwd=cwd, input=stdin, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (argv, done.stdout, done.stderr)
    return done.stdout


def test_curl_over_http_and_over_the_unix_socket(vault: Vault, upstream: Upstream) -> None:
    token = vault.add("p")
    vault.up()
    header = f"Authorization: Bearer {token}"
    url = f"http://127.0.0.1:{vault.port}"
    assert json.loads(run("curl", "-sS", "-H", header, url + "/a%2Fb"))["path"] == "/a%2Fb"
    over_unix = run("curl", "-sS", "-H", header, "--unix-socket", vault.path, "http://localhost/x")
    assert json.loads(over_unix)["path"] == "/x"
    posted = run(
        "curl",
        "-sS",
        "-H",
        header,
        "--data-binary",
        "@-",
        "-H",
        "Expect: 100-continue",
        url + "/go-on",
        stdin="y" * 5000,
    )
    assert posted == "got 5000"
    compressed = run("curl", "-sS", "--compressed", "-H", header, url + "/small")
    assert compressed == "ok"
    assert upstream.seen[-1].header("accept-encoding") == "deflate, gzip"
    assert "401" in run("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", url)


@pytest.fixture
def claude(vault: Vault, upstream: Upstream, shipped: Shipped) -> Iterator[anthropic.Anthropic]:
    """The anthropic package, pointed at the vault."""
    upstream.handlers["/v1/messages"] = models.anthropic
    token = shipped("anthropic")
    vault.up()
    with anthropic.Anthropic(api_key=token, base_url=f"http://127.0.0.1:{vault.port}", max_retries=0) as client:
        yield client


def test_the_anthropic_package(claude: anthropic.Anthropic, vault: Vault, upstream: Upstream) -> None:
    message = claude.messages.create(model="m", max_tokens=10, messages=[{"role": "user", "content": "count"}])
    assert message.content[0].type == "text" and message.content[0].text == "one two three"
    assert upstream.seen[-1].header("x-api-key") == SECRET
    assert vault.audit()[-1]["tokens"] == {"input": 12, "output": 3, "cached": 0}


def test_the_anthropic_package_streaming(claude: anthropic.Anthropic, vault: Vault) -> None:
    with claude.messages.stream(model="m", max_tokens=10, messages=[{"role": "user", "content": "count"}]) as stream:
        assert list(stream.text_stream) == list(turns.WORDS)
        assert stream.get_final_message().usage.output_tokens == 3
    assert vault.audit()[-1]["tokens"] == {"input": 12, "output": 3, "cached": 0}


def test_the_anthropic_package_shows_our_reason(claude: anthropic.Anthropic, vault: Vault) -> None:
    vault.store.revoke("box")
    with pytest.raises(anthropic.AuthenticationError, match="not one of this container's"):
        claude.messages.create(model="m", max_tokens=10, messages=[{"role": "user", "content": "count"}])


def test_an_anthropic_login_merges_its_header(
    vault: Vault, upstream: Upstream, shipped: Shipped, authority: Authority
) -> None:
    upstream.handlers["/v1/messages"] = models.anthropic
    secret = json.dumps({"access_token": "sk-ant-oat01-real-token"})
    url = f"https://localhost:{upstream.port}"
    token = vault.add("anthropic", secret, auth="oauth", upstream=url, ca_bundle=authority.file, allow_private=True)
    vault.up()
    base = f"http://127.0.0.1:{vault.port}"
    with anthropic.Anthropic(auth_token=token, api_key=None, base_url=base, max_retries=0) as client:
        client.beta.messages.create(
            model="m", max_tokens=10, betas=["x-1"], messages=[{"role": "user", "content": "c"}]
        )
    seen = upstream.seen[-1]
    assert seen.header("authorization") == "Bearer sk-ant-oat01-real-token"
    assert seen.header("anthropic-beta") == "x-1,oauth-2025-04-20"
    assert seen.header("x-api-key") is None


def test_the_openai_package(vault: Vault, upstream: Upstream, shipped: Shipped) -> None:
    upstream.handlers["/v1/chat/completions"] = models.completions
    token = shipped("openai")
    vault.up()
    with openai.OpenAI(api_key=token, base_url=f"http://127.0.0.1:{vault.port}/v1", max_retries=0) as client:
        done = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "count"}])
        assert done.choices[0].message.content == "one two three"
        stream = client.chat.completions.create(model="m", stream=True, messages=[{"role": "user", "content": "count"}])
        words = [chunk.choices[0].delta.content for chunk in stream if chunk.choices]
    assert words == list(turns.WORDS)
    assert upstream.seen[-1].header("authorization") == f"Bearer {SECRET}"
    assert [line["tokens"] for line in vault.audit()] == [{"input": 7, "output": 3, "cached": 0}] * 2


def test_gh_over_the_unix_socket(vault: Vault, upstream: Upstream, shipped: Shipped, tmp_path: Path) -> None:
    upstream.handlers["/user"] = services.github_user
    upstream.handlers["/repos/o/r/issues"] = services.github_issues
    token = shipped("github")
    vault.up()
    (tmp_path / "config.yml").write_text(f"git_protocol: https\nprompt: disabled\nhttp_unix_socket: {vault.path}\n")
    env = {"GH_CONFIG_DIR": str(tmp_path), "GH_TOKEN": token, "GH_NO_UPDATE_NOTIFIER": "1"}
    assert run("gh", "api", "user", "--jq", ".login", env=env).strip() == "octocat"
    assert secret_of(upstream.seen[-1]) == SECRET.encode()
    made = run("gh", "api", "repos/o/r/issues", "-f", "title=broken", env=env)
    assert json.loads(made)["title"] == "broken"
    denied = subprocess.run(
        ["gh", "api", "user/keys", "-f", "title=x"],
        env={"PATH": os.environ["PATH"], **env},
        capture_output=True,
        text=True,
    )
    assert denied.returncode != 0
    assert "no-new-credentials" in denied.stdout + denied.stderr
    assert vault.audit()[-1]["reason"] == "rule:no-new-credentials"


def test_git_clones_and_pushes_over_https(
    vault: Vault, upstream: Upstream, authority: Authority, tmp_path: Path
) -> None:
    env = {
        "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@x", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@x",
    }  # fmt: skip
    bare = tmp_path / "served" / "o" / "r"
    run("git", "init", "-q", "--bare", "-b", "main", str(bare), env=env)
    run("git", "-C", str(bare), "config", "http.receivepack", "true", env=env)
    upstream.handlers["/o/r"] = services.Git(str(tmp_path / "served"))
    basic = auth("Authorization", "")._replace(scheme="basic", user="x-access-token")
    routed = provider("x", ca_bundle=authority.file, auth={"api-key": auth("Authorization", "token "), "basic": basic})
    git = model.Upstream(f"https://localhost:{upstream.port}", "/github.com/", strip=True, auth_as="basic")
    routed = routed._replace(upstreams=(git,))
    vault.write_routes({"github": routed})
    token = vault.add("github")
    vault.up()
    phantom = base64.b64encode(f"x-access-token:{token}".encode()).decode()
    here = f"http://127.0.0.1:{vault.port}/github.com/"
    for name, value in (
        (f"url.{here}.insteadOf", "https://github.com/"),
        (f"http.{here}.extraHeader", f"Authorization: Basic {phantom}"),
    ):
        run("git", "config", "--global", name, value, env=env)
    work = tmp_path / "work"
    run("git", "clone", "-q", "https://github.com/o/r", str(work), env=env)
    for number in range(20):
        (work / f"file-{number}").write_bytes(os.urandom(100_000))
    run("git", "-C", str(work), "add", ".", env=env)
    run("git", "-C", str(work), "commit", "-q", "-m", "much", env=env)
    run("git", "-C", str(work), "push", "-q", "origin", "HEAD:main", env=env)
    run("git", "clone", "-q", "https://github.com/o/r", str(tmp_path / "again"), env=env)
    assert (tmp_path / "again" / "file-7").read_bytes() == (work / "file-7").read_bytes()
    assert {secret_of(request) for request in upstream.seen} == {SECRET.encode()}


def test_twine_uploads_and_pip_installs(
    vault: Vault, upstream: Upstream, authority: Authority, shipped: Shipped, tmp_path: Path
) -> None:
    index = services.Index()
    upstream.handlers["/legacy"] = index.upload
    upstream.handlers["/simple"] = index.simple
    token = shipped("pypi", auth="basic")
    vault.up()
    base = f"127.0.0.1:{vault.port}"
    env = {"HOME": str(tmp_path), "TWINE_USERNAME": "__token__", "TWINE_PASSWORD": token}
    built = services.wheel(tmp_path)
    run(
        sys.executable, "-m", "twine", "upload", "--non-interactive", "--disable-progress-bar",
        "--repository-url", f"http://{base}/legacy/", str(built), env=env,
    )  # fmt: skip
    assert index.files[built.name] == built.read_bytes()
    assert secret_of(upstream.seen[-1]) == SECRET.encode()
    routed = provider(f"https://localhost:{upstream.port}", ca_bundle=authority.file)
    vault.write_routes({"index": routed})
    token = vault.add("index", auth="basic")
    target = tmp_path / "target"
    run(
        sys.executable, "-m", "pip", "--isolated", "install", "-q", "--no-cache-dir", "--disable-pip-version-check",
        "--index-url", f"http://__token__:{token}@{base}/simple/", "--target", str(target), "standin-package", env=env,
    )  # fmt: skip
    assert (target / "standin_package.py").read_text() == "VALUE = 1\n"
