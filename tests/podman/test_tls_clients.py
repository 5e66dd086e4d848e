"""Clients as distributions and vendors make them, in a container without any base URL, against a stand-in vendor.

The machine's own programs are shown to the container read-only, its bundle of certificates too. Each client is told
its token by the variables that terok sets, and nothing else.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.lab import scope
from tests.lab.house import House
from tests.standins.authority import Authority
from tests.standins.dns import Resolver
from tests.standins.upstream import Conversation, Request, Upstream

SCOPE = "clients"
GITHUB = "ghp_REALgithub0123456789abcdefghijklmnopq"
OPENAI = "sk-REAL-openai-0123456789abcdefghijklmnopqrstuv"
HOSTS = ("api.anthropic.com", "api.openai.com", "api.github.com", "github.com", "uploads.github.com")
SHOWN = (
    "/usr/bin",
    "/usr/lib",
    "/usr/share",
    "/etc/ssl",
    "/etc/alternatives",
    *map(str, Path("/etc").glob("java-*-openjdk")),
)
SITE = Path(pytest.__file__).parents[1]
KEY = "import os; key = os.environ['ANTHROPIC_API_KEY']; url = 'https://api.anthropic.com/v1/models'; "
NODE = "const headers = {'x-api-key': process.env.ANTHROPIC_API_KEY}, url = 'https://api.anthropic.com/v1/models'; "
JAVA = """\
import java.net.*; import java.net.http.*;
public class Ask {
    public static void main(String[] words) throws Exception {
        var request = HttpRequest.newBuilder(URI.create("https://api.anthropic.com/v1/models"))
            .header("x-api-key", System.getenv("ANTHROPIC_API_KEY")).build();
        System.out.println(HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString()).statusCode());
    }
}
"""
RAW = (
    '(printf "GET /v1/models HTTP/1.1\\r\\nHost: api.anthropic.com\\r\\nx-api-key: $ANTHROPIC_API_KEY\\r\\n'
    'Connection: close\\r\\n\\r\\n"; sleep 2) | openssl s_client -quiet -verify_return_error '
    "-servername api.anthropic.com -connect api.anthropic.com:443"
)


class Client(NamedTuple):
    """A client's command, and the request that must arrive with the real credential."""

    command: str
    path: str = "/v1/models"
    header: str = "x-api-key"
    value: str = scope.SECRET


def python(code: str) -> str:
    return f'python3 -c "{KEY}{code}"'


CLIENTS = {
    "curl": Client('curl -sSf -H "x-api-key: $ANTHROPIC_API_KEY" https://api.anthropic.com/v1/models'),
    "wget": Client('/usr/bin/wget -qO- --header "x-api-key: $ANTHROPIC_API_KEY" https://api.anthropic.com/v1/models'),
    "openssl": Client(RAW),
    "gh": Client("gh api user", "/user", "authorization", f"token {GITHUB}"),
    "git": Client(
        "git ls-remote https://github.com/me/private; true",
        "/me/private/info/refs?service=git-upload-pack",
        "authorization",
        "Basic " + base64.b64encode(f"x-access-token:{GITHUB}".encode()).decode(),
    ),
    "urllib": Client(
        python("import urllib.request as u; u.urlopen(u.Request(url, headers={'x-api-key': key}), timeout=20).read()")
    ),
    "requests": Client(python("import requests; requests.get(url, headers={'x-api-key': key}).raise_for_status()")),
    "httpx": Client(python("import httpx; httpx.get(url, headers={'x-api-key': key}).raise_for_status()")),
    "aiohttp": Client(
        'python3 -c "import os, asyncio, aiohttp\nasync def main():\n'
        " async with aiohttp.ClientSession() as s:\n"
        "  headers = {'x-api-key': os.environ['ANTHROPIC_API_KEY']}\n"
        "  async with s.get('https://api.anthropic.com/v1/models', headers=headers) as r: assert r.status == 200\n"
        'asyncio.run(main())"'
    ),
    "anthropic": Client(python("import anthropic; anthropic.Anthropic(max_retries=0).models.list()"), "/v1/models"),
    "openai": Client(
        'python3 -c "import openai; openai.OpenAI(max_retries=0).models.list()"',
        "/v1/models",
        "authorization",
        f"Bearer {OPENAI}",
    ),
    "node fetch": Client(f'node -e "{NODE}fetch(url, {{headers}}).then(r => process.exit(r.ok ? 0 : 1))"'),
    "node https": Client(
        f"node -e \"{NODE}require('https').get(url, {{headers}}, r => process.exit(r.statusCode == 200 ? 0 : 1))\""
    ),
    "java": Client("cd /tmp && java /ask/Ask.java"),
}


def vendor_of(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """An empty page of anything; git has to say who it is first, as a private repository wants."""
    talk.read_body(request)
    if "/info/refs" in request.path and request.header("authorization") is None:
        challenge = 'WWW-Authenticate: Basic realm="GitHub"\r\n'
        talk.answer(b"", "401 Unauthorized", challenge)
    else:
        page = b'{"data": [], "has_more": false, "login": "me", "object": "list"}'
        talk.answer(page, headers="Content-Type: application/json\r\n")
    return True


@pytest.fixture(scope="module")
def vendor(house: House, resolver: Resolver) -> Iterator[Upstream]:
    """All of the vendors at one address, known by a certificate that only the vault trusts."""
    authority = Authority(house.base / "clients-authority.pem", *HOSTS)
    scope.furnish(house, upstream="https://api.anthropic.com", ca_bundle=authority.file, scope=SCOPE)
    for provider, secret in (("github", GITHUB), ("openai", OPENAI)):
        words = ["vault", "add", SCOPE, provider, "--allow-private", "--ca-bundle", authority.file, "--replace"]
        house.terok(*words, stdin=secret + "\n")
    with Upstream(authority.context, resolver.records["api.anthropic.com"][0], 443) as vendors:
        vendors.handlers = {"/": vendor_of}
        vendors.handlers |= dict.fromkeys(("/v1/models", "/user", "/me/private/info/refs"), vendor_of)
        yield vendors


@pytest.fixture(scope="module")
def box(house: House, vendor: Upstream) -> Iterator[str]:
    """One container for all clients."""
    name = "tls-clients"
    ask = house.base / "ask"
    ask.mkdir(exist_ok=True)
    (ask / "Ask.java").write_text(JAVA)
    shown = [word for path in SHOWN if Path(path).exists() for word in ("--volume", f"{path}:{path}:ro")]
    house.terok(
        "run", name, "--scope", SCOPE, "--network", "airlock", "--", "--detach", *shown,
        "--volume", f"{ask}:/ask:ro", "--volume", f"{SITE}:/site:ro", "--env", "PYTHONPATH=/site",
        house.image, "sleep", "1000",
    )  # fmt: skip
    # every service is there before the first test looks what each of them leaves behind
    house.podman("exec", name, "sh", "-c", CLIENTS["curl"].command + "; curl -sS https://not-allowed.test", check=False)
    yield name
    house.podman("rm", "--force", "--time", "0", name)
    house.terok("cleanup", name)


@pytest.mark.parametrize("which", CLIENTS)
def test_a_client_as_it_is(house: House, box: str, vendor: Upstream, which: str) -> None:
    client = CLIENTS[which]
    vendor.seen.clear()
    done = house.podman("exec", box, "/usr/bin/sh", "-c", client.command, check=False, timeout=100)
    asked = [request for request in vendor.seen if request.path.startswith(client.path)]
    assert asked, done.stdout + done.stderr
    assert asked[-1].header(client.header) == client.value, done.stdout + done.stderr
    if "; true" not in client.command:
        assert done.returncode == 0, done.stdout + done.stderr
    variables = house.podman("exec", box, "env").stdout
    sent = str([(request.path, request.headers, request.body) for request in vendor.seen])
    tokens = [line.partition("=")[2] for line in variables.splitlines() if "TOKEN" in line or "API_KEY" in line]
    assert len(tokens) >= 3 and not [token for token in tokens if token in sent], "no phantom upstream"
    assert not [secret for secret in (scope.SECRET, GITHUB, OPENAI) if secret in variables]


def test_no_client_has_a_base_url(house: House, box: str) -> None:
    variables = house.podman("exec", box, "env").stdout.splitlines()
    assert [line for line in variables if "9419" in line and not line.startswith("TEROK_")] == []


def test_python_is_the_machines(house: House, box: str) -> None:
    """The packages in /site are for this version."""
    said = house.podman("exec", box, "python3", "-c", "import sys; print(sys.version_info[:2])").stdout
    assert said.strip() == str(sys.version_info[:2])
