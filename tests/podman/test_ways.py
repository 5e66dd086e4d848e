"""Every way to start a container, and the same test of what works inside."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from terok_host.runtime.host import podman
from tests.lab import scope
from tests.lab.house import House
from tests.standins.authority import Authority
from tests.standins.dns import Resolver
from tests.standins.forge import PASSWORD, HttpsForge
from tests.standins.gate import make_upstream
from tests.standins.stores import unlocked
from tests.standins.upstream import Upstream

from .conftest import remove_everything

WAYS_SCOPE, WAYS_PROFILE = "ways", "ways"
REPOSITORY = WAYS_SCOPE
LIVE = ("/bin/sleep", "1000")
ANNOTATED = (f"--annotation=terok.scope={WAYS_SCOPE}", f"--annotation=terok.shield.profiles={WAYS_PROFILE}")
WIRING = ("--scope", WAYS_SCOPE, "--profiles", WAYS_PROFILE)
SCRIPT = f"""
export PATH=/usr/bin:/bin
while IFS= read -r line; do export "$line"; done </run/terok/env
code() {{ curl -s -m 20 -o /dev/null -w '%{{http_code}} %{{exitcode}}' "$@"; }}
echo "allowed $(code http://{scope.ALLOWED}/)"
echo "denied $(code -m 5 http://{scope.DENIED}/)"
echo "address $(code -m 5 http://192.88.99.66/)"
echo "vault $(code -H "x-api-key: $ANTHROPIC_API_KEY" $TEROK_URL_ANTHROPIC/v1/models)"
echo "signer $(ssh-add -l)"
echo "gate $(git ls-remote http://x:$TEROK_GATE_TOKEN@127.0.0.1:9418/{REPOSITORY}.git refs/heads/main 2>&1)"
"""
VERSION = podman.version({})
NETWORKS = ["slirp4netns", "bridge", *(["pasta"] if VERSION >= (5,) else [])]
POD = """\
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  annotations: {{terok.scope: {scope}, terok.shield.profiles: {profile}}}
spec:
  containers:
    - name: main
      image: {image}
      command: [/bin/sleep, "1000"]
"""


@pytest.fixture(scope="module")
def world(house: House, resolver: Resolver) -> Iterator[Upstream]:
    """A scope with a credential, a key, a mirror and a profile; web servers on the allowed and the denied address."""
    authority = Authority(house.base / "ways-authority.pem", "upstream.test")
    scope.furnish(house, ca_bundle=authority.file, scope=WAYS_SCOPE, profile=WAYS_PROFILE)
    root = Path(tempfile.mkdtemp(dir=house.base))
    make_upstream(root / f"{REPOSITORY}.git")
    forge = HttpsForge(root, house.base)
    with unlocked(house.layout) as store:
        store.put("credential", WAYS_SCOPE, "localhost", PASSWORD.encode(), {"auth": "basic"})
    options = ["--ca-file", str(forge.ca_file), "--mode", "gatekeeping", "--refresh", "0"]
    house.terok("gate", "add", WAYS_SCOPE, f"{forge.url}/{REPOSITORY}.git", *options)
    with (
        Upstream(authority.context, resolver.records["upstream.test"][0], 443) as provider,
        Upstream(None, resolver.records[scope.ALLOWED][0], 80),
        Upstream(None, resolver.records[scope.DENIED][0], 80),
    ):
        yield provider
    forge.close()
    house.terok("gate", "remove", WAYS_SCOPE)
    shutil.rmtree(root)


@pytest.fixture
def container(house: House, name: str) -> Iterator[str]:
    """A container name; afterwards every container and bundle of the test is gone, under whatever name."""
    yield name
    remove_everything(house)


def everything_works(house: House, name: str, provider: Upstream) -> None:
    """An allowed name, a denied name and address, the vault, the signer and the gate, from inside."""
    out = house.podman("exec", name, "/bin/sh", "-c", SCRIPT, check=False).stdout
    found = dict(line.split(" ", 1) for line in out.splitlines() if " " in line)
    assert found["allowed"] == found["vault"] == "200 0", out
    assert (found["denied"], found["address"]) == ("000 6", "000 7"), out  # curl(1): no such host; no connection
    assert provider.seen[-1].header("x-api-key") == scope.SECRET
    assert "ED25519" in found["signer"], out
    assert found["gate"].endswith("refs/heads/main"), out


def _run(house: House, name: str, network: str) -> str:
    house.terok("run", name, *WIRING, "--network", network, "--", "--detach", house.image, *LIVE)
    return name


def _printed(house: House, name: str, network: str) -> str:
    flags = shlex.split(house.terok("prepare", name, *WIRING, "--network", network).stdout)
    house.podman("run", "--detach", *flags, house.image, *LIVE)
    return name


def _annotated(house: House, name: str, network: str) -> str:
    house.podman("run", "--detach", "--name", name, "--network", network, *ANNOTATED, house.image, *LIVE)
    return name


def _created(house: House, name: str, network: str) -> str:
    house.podman("create", "--name", name, "--network", network, *ANNOTATED, house.image, *LIVE)
    house.podman("start", name)
    return name


def _restarted(house: House, name: str, network: str) -> str:
    _annotated(house, name, network)
    house.podman("restart", "--time", "0", name)
    return name


def _own_network(house: House, name: str, network: str) -> str:
    house.podman("network", "create", f"n-{name}")
    return _annotated(house, name, f"n-{name}")


def _user_namespace(house: House, name: str, network: str) -> str:
    flags = ("--network", network, "--userns", "keep-id", "--user", "0")
    house.podman("run", "--detach", "--name", name, *flags, *ANNOTATED, house.image, *LIVE)
    return name


def _kube(house: House, name: str, network: str) -> str:
    text = POD.format(name=name, scope=WAYS_SCOPE, profile=WAYS_PROFILE, image=house.image)
    path = Path(house.home, "ways.yml")
    path.write_text(text)
    house.podman("kube", "play", "--network", network, str(path))
    path.unlink()
    return f"{name}-main"


WAYS: dict[str, Callable[[House, str, str], str]] = {
    "terok run": _run,
    "printed flags": _printed,
    "annotations": _annotated,
    "create and start": _created,
    "restart": _restarted,
    "user namespace": _user_namespace,
    "kube play": _kube,
}


PREPARED = ("terok run", "printed flags")


@pytest.mark.parametrize(
    ("way", "network"), [*((way, "airlock") for way in PREPARED), *((way, mode) for way in WAYS for mode in NETWORKS)]
)
def test_everything_works_however_a_container_is_started(
    house: House, container: str, world: Upstream, way: str, network: str
) -> None:
    everything_works(house, WAYS[way](house, container, network), world)


def test_a_network_of_ones_own(house: House, container: str, world: Upstream) -> None:
    everything_works(house, _own_network(house, container, ""), world)


def test_annotations_without_a_network(house: House, container: str, world: Upstream) -> None:
    _annotated(house, container, "none")
    assert "ED25519" in house.podman("exec", container, "/bin/sh", "-c", SCRIPT, check=False).stdout
