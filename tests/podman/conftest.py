"""Fixtures for tests against real rootless Podman; every test leaves the machine as it found it."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import leaks, scope
from tests.lab.house import House, in_lab
from tests.standins.authority import Authority
from tests.standins.dns import Resolver
from tests.standins.flipping import Flipping
from tests.standins.upstream import Upstream

VENDORS = (
    "api.anthropic.com",
    "api.openai.com",
    "chatgpt.com",
    "api.mistral.ai",
    "generativelanguage.googleapis.com",
    "api.github.com",
    "github.com",
    "uploads.github.com",
    "codeload.github.com",
    "release-assets.githubusercontent.com",
    "api.githubcopilot.com",
    "api.individual.githubcopilot.com",
    "gitlab.com",
    "upload.pypi.org",
    "registry.npmjs.org",
    "huggingface.co",
    "cdn-lfs.huggingface.co",
    "index.vendor.test",
)
"""Hosts of the roster's providers, all at one stand-in address."""
MANY = 74 if b"version 2.91" in subprocess.run(["dnsmasq", "--version"], capture_output=True).stdout else 249
"""The stand-in's dnsmasq 2.91 stops when it answers 200 addresses over TCP; other versions do not."""
RECORDS = {
    "allowed.test": ["192.88.99.10", "2001:2::10"],
    "denied.test": ["192.88.99.66", "2001:2::66"],
    "files.example.org": ["192.88.99.66"],
    "upstream.test": ["198.51.100.20"],
    "own.test": ["192.0.2.2"],
    "one.wild.test": ["192.88.99.30"],
    "two.wild.test": ["192.88.99.30"],
    "inside.wild.test": ["10.77.0.9"],
    "many.test": [f"203.0.113.{number}" for number in range(50, MANY)] + ["192.88.99.10"],
    "mixed.test": ["10.77.0.9", "192.88.99.10", "169.254.169.254", "127.0.0.1"],
    "private.test": ["10.77.0.9", "192.168.77.1"],
    "none.test": [],
    **dict.fromkeys(VENDORS, ["198.51.100.80"]),
}
"""What the stand-in DNS server knows."""

AGENT = """\
#!/bin/sh
# stands in for the vendor's program: asks its provider once, writes into the project, remembers, waits for a word
echo "arguments: $*"
code=$(curl -sS -m 20 -o /dev/null -w '%{http_code}' -H "x-api-key: $ANTHROPIC_API_KEY" "https://upstream.test/v1/models")
echo "provider: $code"
id -u >agent-was-here
echo again >>"$HOME/history"
echo "starts: $(wc -l <"$HOME/history")"
echo READY
read word
echo "word: $word"
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder drives Podman."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.podman)


@pytest.fixture(scope="session")
def house() -> Iterator[House]:
    """An operator's home with Podman storage, the test image and `terok setup` done; one for the session."""
    made = House.build()
    made.podman("run", "--rm", made.image, "true")  # Podman's own first-time work, its pause process among it
    yield made
    made.destroy()


@pytest.fixture(scope="session")
def agent_image(house: House) -> str:
    """The test image with a program `claude` in it."""
    context = house.base / "agent-image"
    context.mkdir()
    (context / "claude").write_text(AGENT)
    (context / "claude").chmod(0o755)
    (context / "Containerfile").write_text(f"FROM {house.image}\nCOPY claude /usr/bin/claude\n")
    house.podman("build", "--quiet", "--tag", "localhost/toy-agent:1", str(context))
    return "localhost/toy-agent:1"


@pytest.fixture(scope="session")
def resolver() -> Iterator[Resolver]:
    """The DNS server that the lab's /etc/resolv.conf names; see `RECORDS`."""
    if not in_lab():
        pytest.fail("This test needs the lab's own network: run `make test` as root, or with sudo that asks nothing.")
    # the second is another host's after the name was allowed, and the third this one's (rebinding)
    changing = Flipping(["192.88.99.10", "10.77.0.9", "127.0.0.1"])
    with changing, Resolver(RECORDS, forward={"rebind.test": changing}) as running:
        yield running


@pytest.fixture(scope="module")
def vendor(house: House, resolver: Resolver) -> Iterator[Upstream]:
    """The lab's scope with its provider on its stand-in address: a real TLS server."""
    authority = Authority(house.base / "vendor-authority.pem", "upstream.test")
    scope.furnish(house, ca_bundle=authority.file)
    with Upstream(authority.context, resolver.records["upstream.test"][0], 443) as provider:
        yield provider


def remove_everything(house: House) -> None:
    """Remove every container, pod, unused network and state bundle, whatever it is called."""
    house.podman("pod", "rm", "--force", "--all", "--time", "0", check=False)
    house.podman("rm", "--force", "--time", "0", "--all")
    house.podman("network", "prune", "--force", check=False)
    for row in json.loads(house.terok("status", "--json").stdout)["containers"]:
        house.terok("cleanup", row["container"])


@pytest.fixture(autouse=True)
def nothing_left(house: House) -> Iterator[None]:
    """Fails a test after which a process, socket, mount, namespace or file of ours is left."""
    before = leaks.take(house)
    yield
    rest = leaks.left(house, before, within=3)
    assert not rest, "left behind:\n" + "\n".join(rest)


@pytest.fixture(params=["airlock", "auto"])
def network(house: House, request: pytest.FixtureRequest) -> Iterator[str]:
    """The configured network mode: the airlock, and then slirp4netns or pasta, where nftables sets follow the names."""
    house.terok("config", "set", "network.mode", request.param)
    yield str(request.param)
    house.terok("config", "set", "network.mode", "airlock")


@pytest.fixture
def name(house: House, nothing_left: None) -> Iterator[str]:
    """A container name of its own; the container and its state bundle are removed after the test."""
    made = f"t-{uuid.uuid4().hex[:8]}"
    yield made
    house.podman("rm", "--force", "--time", "0", "--ignore", made)
    house.terok("cleanup", made)
    (Path(house.layout.profiles) / f"{made}.txt").unlink(missing_ok=True)
