"""Clients that do more than one request, without a base URL: gh's pages and downloads, git, twine, pip.

What a vendor redirects to its storage is no longer the vault's: the container trusts the stand-in storage by its image.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.house import House
from tests.standins import services
from tests.standins.authority import Authority
from tests.standins.dns import Resolver
from tests.standins.models import send_json
from tests.standins.upstream import Conversation, Request, Upstream

from .conftest import VENDORS
from .test_tls_clients import SHOWN, SITE

SCOPE = "tools"
SECRETS = {
    "github": "ghp_REALgithub0123456789abcdefghijklmnopq",
    "pypi": "pypi-REAL-0123456789abcdefghijklmnopqrstuvwxyz",
    "custom-index": "REAL-index-password-0123456789",
}
API = "https://api.github.com/repos/me/private"
RELEASE = {
    "id": 1, "tag_name": "v1", "name": "v1", "tarball_url": f"{API}/tarball/v1", "zipball_url": f"{API}/zipball/v1",
    "assets": [{"id": 7, "name": "tool.txt", "size": 4, "state": "uploaded", "url": f"{API}/releases/assets/7"}],
}  # fmt: skip
STORED = {
    f"{API}/releases/assets/7".removeprefix("https://api.github.com"): "https://release-assets.githubusercontent.com",
    f"{API}/tarball/v1".removeprefix("https://api.github.com"): "https://codeload.github.com",
}


def github(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """GitHub's API: a pull request, a release, and redirects to where its files are stored."""
    talk.read_body(request)
    path = request.path.partition("?")[0]
    if path == "/graphql" and b"pullRequests" not in request.body:
        return send_json(talk, {"data": {"repository": {"release": {"databaseId": 1, "isDraft": False}}}})
    if path == "/graphql":
        pulls = {"nodes": [{"number": 5, "title": "A change"}], "totalCount": 1, "pageInfo": {"hasNextPage": False}}
        return send_json(talk, {"data": {"repository": {"id": "R_1", "pullRequests": pulls}}})
    if path in STORED:
        talk.answer(b"", "302 Found", f"Location: {STORED[path]}/stored/file?signature=1\r\n")
        return True
    return send_json(talk, RELEASE)


def storage(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """A file in GitHub's storage; a signature in the query lets its reader in."""
    talk.read_body(request)
    talk.answer(b"tool", headers='Content-Disposition: attachment; filename="private-v1.tar.gz"\r\n')
    return True


@pytest.fixture(scope="module")
def served(house: House) -> Path:
    """The bare repository me/private with one commit."""
    root = house.base / "tools-served"
    bare = root / "me/private"
    house.run(["git", "init", "-q", "--bare", "-b", "main", str(bare)])
    house.run(["git", "-C", str(bare), "config", "http.receivepack", "true"])
    return root


@pytest.fixture(scope="module")
def vendor(house: House, resolver: Resolver, served: Path) -> Iterator[Upstream]:
    """GitHub, PyPI's uploads and a private index at one address."""
    authority = Authority(house.base / "tools-authority.pem", *VENDORS)
    words = ("--allow-private", "--ca-bundle", authority.file, "--replace")
    more = {"custom-index": ("--upstream", "https://index.vendor.test", "--auth", "basic", "--user", "me")}
    for provider, secret in SECRETS.items():
        house.terok("vault", "add", SCOPE, provider, *more.get(provider, ()), *words, stdin=secret + "\n")
    index, git = services.Index(), services.Git(str(served))
    with Upstream(authority.context, resolver.records["github.com"][0], 443) as vendors:
        vendors.handlers = {
            "/graphql": github, "/repos": github, "/stored": storage, "/me/private": asks_for_a_login(git),
            "/legacy": index.upload, "/simple": index.simple,
        }  # fmt: skip
        yield vendors


def asks_for_a_login(git: services.Git) -> services.Git:
    """Git's first request carries no credential; a private repository asks for one."""

    class Private(services.Git):
        def __call__(self, upstream: Upstream, talk: Conversation, request: Request) -> bool:
            if request.header("authorization") is None:
                talk.read_body(request)
                talk.answer(b"", "401 Unauthorized", 'WWW-Authenticate: Basic realm="GitHub"\r\n')
                return True
            return git(upstream, talk, request)

    return Private("")


@pytest.fixture(scope="module")
def box(house: House, vendor: Upstream) -> Iterator[str]:
    """A container whose image also trusts the stand-in storage, as every image trusts the real one."""
    name = "tls-tools"
    files = house.base / "tools-files"
    (files / "ssl/certs").mkdir(parents=True, exist_ok=True)
    bundle = Path("/etc/ssl/certs/ca-certificates.crt").read_text() + (house.base / "tools-authority.pem").read_text()
    (files / "ssl/certs/ca-certificates.crt").write_text(bundle)
    services.wheel(files)
    shown = [
        word for path in SHOWN if Path(path).exists() and path != "/etc/ssl" for word in ("-v", f"{path}:{path}:ro")
    ]
    house.terok(
        "run", name, "--scope", SCOPE, "--network", "airlock", "--", "--detach", *shown,
        "--volume", f"{files}/ssl:/etc/ssl:ro", "--volume", f"{files}:/files:ro", "--volume", f"{SITE}:/site:ro",
        "--env", "PYTHONPATH=/site", house.image, "sleep", "1000",
    )  # fmt: skip
    house.podman("exec", name, "sh", "-c", "gh api /repos/me/private; curl -sS https://not-allowed.test", check=False)
    yield name
    house.podman("rm", "--force", "--time", "0", name)
    house.terok("cleanup", name)


def ask(house: House, box: str, vendor: Upstream, script: str) -> tuple[str, list[Request]]:
    """What a client printed and what it asked the vendor for; no phantom token got there, no secret was printed."""
    vendor.seen.clear()
    done = house.podman("exec", box, "/usr/bin/sh", "-ec", script, check=False, timeout=100)
    said = done.stdout + done.stderr + "".join(f"\n{request.method} {request.path}" for request in vendor.seen)
    assert done.returncode == 0, said
    sent = str([(request.path, request.headers, request.body) for request in vendor.seen])
    variables = house.podman("exec", box, "env").stdout
    tokens = [line.partition("=")[2] for line in variables.splitlines() if line.startswith("TEROK_TOKEN_")]
    basics = [base64.b64encode(f"{user}:{token}".encode()).decode() for token in tokens for user in ("me", "__token__")]
    assert len(tokens) == len(SECRETS) and not [token for token in [*tokens, *basics] if token in sent], sent
    assert not [secret for secret in SECRETS.values() if secret in variables + done.stdout + done.stderr]
    return done.stdout, list(vendor.seen)


def credential(request: Request) -> str | None:
    """The credential of a request, with `user:` in front in Basic's way."""
    scheme, _, value = (request.header("authorization") or "").partition(" ")
    return base64.b64decode(value).decode() if scheme.lower() == "basic" else value or None


def test_gh_lists_pull_requests(house: House, box: str, vendor: Upstream) -> None:
    said, seen = ask(house, box, vendor, "gh pr list --repo me/private --json number,title")
    assert '"number":5' in said
    assert {credential(request) for request in seen} == {SECRETS["github"]}


@pytest.mark.parametrize(
    ("words", "file", "known"),
    [("--pattern tool.txt", "tool.txt", None), ("--archive tar.gz", "*.tar.gz", SECRETS["github"])],
)
def test_gh_downloads_of_a_release_end_at_the_storage(
    house: House, box: str, vendor: Upstream, words: str, file: str, known: str | None
) -> None:
    """Gh may send its token to every host below github.com: to the storage of archives, never to that of files."""
    script = f"rm -rf /tmp/d; gh release download v1 --repo me/private --dir /tmp/d {words}; cat /tmp/d/{file}"
    said, seen = ask(house, box, vendor, script)
    assert said == "tool"
    stored = [request for request in seen if request.path.startswith("/stored")]
    assert stored and {credential(request) for request in stored} <= {known, None}
    assert {credential(request) for request in seen if request not in stored} == {SECRETS["github"]}


def test_git_clones_and_pushes_at_the_forges_own_url(house: House, box: str, vendor: Upstream, served: Path) -> None:
    script = (
        # nothing in the container reaps what newer gits leave working behind a commit
        'git() { command git -c maintenance.auto=false "$@"; }\n'
        "rm -rf /tmp/c; export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@x GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@x\n"
        "git clone -q https://github.com/me/private /tmp/c; cd /tmp/c; git checkout -q -b main; echo hello >file\n"
        "git add file; git commit -q -m one; git push -q origin main; git ls-remote https://github.com/me/private\n"
    )
    said, seen = ask(house, box, vendor, script)
    head = house.run(["git", "-C", str(served / "me/private"), "rev-parse", "main"]).stdout.strip()
    assert head in said
    asked = {credential(request) for request in seen} - {None}
    assert asked == {f"x-access-token:{SECRETS['github']}"}


def test_twine_uploads_and_pip_installs_from_a_private_index(house: House, box: str, vendor: Upstream) -> None:
    _, seen = ask(house, box, vendor, "python3 -m twine upload --non-interactive /files/*.whl")
    assert {credential(request) for request in seen} == {f"__token__:{SECRETS['pypi']}"}
    index = "https://me:$TEROK_TOKEN_CUSTOM_INDEX@index.vendor.test/simple/"
    words = f"--index-url {index} --no-deps --no-cache-dir --disable-pip-version-check --target /tmp/p standin-package"
    _, seen = ask(house, box, vendor, f"python3 -m pip install -q {words}; grep -q VALUE /tmp/p/standin_package.py")
    assert {credential(request) for request in seen} - {None} == {f"me:{SECRETS['custom-index']}"}


def test_no_client_has_a_base_url(house: House, box: str) -> None:
    variables = house.podman("exec", box, "env").stdout.splitlines()
    assert [line for line in variables if "9419" in line and not line.startswith("TEROK_")] == []
