"""npm, the SDKs for TypeScript, undici and huggingface_hub, without a base URL; run by `make test-agents`.

What a vendor redirects to its storage is no longer the vault's: the container trusts the stand-in storage by its image.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import scope
from tests.lab.house import House
from tests.standins import models
from tests.standins.authority import Authority
from tests.standins.dns import Resolver
from tests.standins.models import send_json
from tests.standins.upstream import Conversation, Request, Upstream

from .agents import INSTALLED, SHOWN
from .conftest import VENDORS

SCOPE = "sdks"
SECRETS = {
    "anthropic": scope.SECRET,
    "openai": "sk-REAL-openai-0123456789abcdefghijklmnopqrstuv",
    "npm": "npm_REAL0123456789abcdefghijklmnopqrstuv",
    "huggingface": "hf_REAL0123456789abcdefghijklmnopqrst",
}
CONTENT = b"weights"
STORED = "https://cdn-lfs.huggingface.co/stored/file.bin?Signature=1"
ANTHROPIC = """
import Anthropic from '/agents/node_modules/@anthropic-ai/sdk/index.mjs';
const stream = new Anthropic({maxRetries: 0}).messages.stream(
  {model: 'm', max_tokens: 9, messages: [{role: 'user', content: 'count'}]});
console.log((await stream.finalMessage()).content[0].text);
"""
OPENAI = """
import OpenAI from '/agents/node_modules/openai/index.mjs';
const stream = new OpenAI({maxRetries: 0}).responses.stream({model: 'm', input: 'count'});
console.log((await stream.finalResponse()).output_text);
"""
UNDICI = """
import {request} from '/agents/node_modules/undici/index.js';
const body = JSON.stringify({model: 'm', max_tokens: 9, messages: [{role: 'user', content: 'count'}]});
const headers = {'x-api-key': process.env.ANTHROPIC_API_KEY};
const done = await request('https://api.anthropic.com/v1/messages', {method: 'POST', headers, body});
console.log((await done.body.json()).content[0].text);
"""
HUB = "from huggingface_hub import hf_hub_download; print(open(hf_hub_download('me/model', 'file.bin')).read())"


def registry(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """npm's registry: who somebody is, a private package, and its publication."""
    talk.read_body(request)
    if request.path == "/-/whoami":
        return send_json(talk, {"username": "octocat"})
    if request.method == "PUT":
        return send_json(talk, {"ok": True, "success": True}, "201 Created")
    if b"2.0.0" in b"".join(seen.body for seen in upstream.seen):
        return send_json(talk, {"error": "not found"}, "404 Not Found")
    version = {"name": "@me/tool", "version": "1.0.0", "dist": {"shasum": "0" * 40, "tarball": "https://x.invalid/t"}}
    return send_json(talk, {"name": "@me/tool", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}})


def hub(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """A file of a private model: the hub describes it and redirects to its storage."""
    talk.read_body(request)
    head = f'Location: {STORED}\r\nX-Repo-Commit: {"a" * 40}\r\nX-Linked-Etag: "{"b" * 64}"\r\n'
    talk.send(f"HTTP/1.1 302 Found\r\n{head}X-Linked-Size: {len(CONTENT)}\r\nContent-Length: 0\r\n\r\n".encode())
    return True


def storage(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """The hub's storage; a signature in the query lets its reader in."""
    talk.read_body(request)
    talk.answer(CONTENT if request.method == "GET" else b"", headers=f'ETag: "{"b" * 64}"\r\n')
    return True


@pytest.fixture(scope="module")
def vendor(house: House, resolver: Resolver) -> Iterator[Upstream]:
    """All of the vendors at one address."""
    authority = Authority(house.base / "sdks-authority.pem", *VENDORS)
    for provider, secret in SECRETS.items():
        words = ("vault", "add", SCOPE, provider, "--allow-private", "--ca-bundle", authority.file, "--replace")
        house.terok(*words, stdin=secret + "\n")
    with Upstream(authority.context, resolver.records["huggingface.co"][0], 443) as vendors:
        vendors.handlers |= {"/me/model": hub, "/stored": storage, "/-/whoami": registry}
        vendors.handlers |= {"/@me%2Ftool": registry}
        models.serve(vendors)
        yield vendors


@pytest.fixture(scope="module")
def box(house: House, vendor: Upstream) -> Iterator[str]:
    """A container with the clients, whose image also trusts the stand-in storage."""
    name = "tls-sdks"
    files = house.base / "sdks-files"
    (files / "ssl/certs").mkdir(parents=True)
    bundle = Path("/etc/ssl/certs/ca-certificates.crt").read_text() + (house.base / "sdks-authority.pem").read_text()
    (files / "ssl/certs/ca-certificates.crt").write_text(bundle)
    for file, text in (("anthropic", ANTHROPIC), ("openai", OPENAI), ("undici", UNDICI)):
        (files / f"{file}.mjs").write_text(text)
    (files / "package.json").write_text('{"name": "@me/tool", "version": "2.0.0", "files": ["undici.mjs"]}')
    paths = [path for path in SHOWN if Path(path).exists() and path != "/etc/ssl"]
    shown = [word for path in paths for word in ("--volume", f"{path}:{path}:ro")]
    house.terok(
        "run", name, "--scope", SCOPE, "--profiles", "dev-python", "--network", "airlock", "--", "--detach", *shown,
        "--volume", f"{files}/ssl:/etc/ssl:ro", "--volume", f"{files}:/files:ro", "--volume",
        f"{INSTALLED}:/agents:ro", "--env", "PATH=/agents/node_modules/.bin:/usr/bin:/bin", "--env",
        "PYTHONPATH=/agents/site", house.image, "sleep", "1000",
    )  # fmt: skip
    house.podman("exec", name, "curl", "-sS", "https://huggingface.co", "https://not-allowed.test", check=False)
    yield name
    house.podman("rm", "--force", "--time", "0", name)
    house.terok("cleanup", name)


@pytest.mark.parametrize(
    ("script", "provider", "wanted"),
    [
        ("node /files/anthropic.mjs", "anthropic", "one two three"),
        ("node /files/openai.mjs", "openai", "one two three"),
        ("node /files/undici.mjs", "anthropic", "one two three"),
        ("npm whoami", "npm", "octocat"),
        ("npm view @me/tool version", "npm", "1.0.0"),
        ("cd /files && npm publish --ignore-scripts", "npm", "@me/tool@2.0.0"),
        (f'python3 -c "{HUB}"', "huggingface", "weights"),
    ],
)
def test_a_client_as_it_is(house: House, box: str, vendor: Upstream, script: str, provider: str, wanted: str) -> None:
    vendor.seen.clear()
    done = house.podman("exec", box, "/usr/bin/sh", "-ec", script, check=False, timeout=100)
    audit = Path(house.bundle(box).audit).read_text().splitlines()[-6:]
    said = "\n".join([done.stdout, done.stderr, *(f"{seen.method} {seen.path}" for seen in vendor.seen), *audit])
    assert done.returncode == 0 and wanted in done.stdout, said
    for seen in vendor.seen:
        known = f"{seen.header('authorization')} {seen.header('x-api-key')}"
        assert (SECRETS[provider] in known) != seen.path.startswith("/stored"), (seen.path, known)
    sent = str([(seen.path, seen.headers, seen.body) for seen in vendor.seen])
    variables = house.podman("exec", box, "env").stdout
    tokens = [line.partition("=")[2] for line in variables.splitlines() if line.startswith("TEROK_TOKEN_")]
    assert len(tokens) == len(SECRETS) and not [token for token in tokens if token in sent], "no phantom upstream"
    assert not [secret for secret in SECRETS.values() if secret in variables + done.stdout]
