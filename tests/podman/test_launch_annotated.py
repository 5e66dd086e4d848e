"""Containers that carry one annotation and were never prepared: `podman run`, `create`, `kube play`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from terok_host.supervisor.errors import Exit
from tests.lab.house import House

SCOPE = "myproj"
SCRIPT = "ls /run/terok; cat /run/terok/env /etc/resolv.conf"


@pytest.fixture(autouse=True)
def profile(house: House) -> Iterator[None]:
    """A shield profile named like the scope makes the scope known."""
    directory = Path(house.layout.profiles)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{SCOPE}.txt").write_text("allowed.test\n")
    yield
    (directory / f"{SCOPE}.txt").unlink()


@pytest.fixture
def container(house: House, name: str) -> Iterator[str]:
    """A container name; afterwards the bundle that was made under the container's short id is removed."""
    yield name
    house.podman("rm", "--force", "--time", "0", "--ignore", name)
    for each in statuses(house):
        house.terok("cleanup", each["container"])


def statuses(house: House) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(house.terok("status", "--json").stdout)["containers"]
    return found


def check(text: str) -> None:
    assert "vault.sock" in text
    assert "TEROK_VAULT_SOCKET=/run/terok/vault.sock" in text
    assert "SSH_AUTH_SOCK=/run/terok/ssh-agent.sock" in text
    assert "nameserver 127.0.0.1" in text


def test_one_annotation_is_enough(house: House, container: str) -> None:
    flag = f"--annotation=terok.scope={SCOPE}"
    first = house.podman("run", "--name", container, flag, house.image, "sh", "-c", SCRIPT).stdout
    check(first)
    status = statuses(house)[0]
    assert status["scope"] == SCOPE
    assert status["profiles"] == ["dev-standard", SCOPE]
    assert house.podman("start", "--attach", container).stdout == first


def test_create_and_start_as_a_desktop_does(house: House, container: str) -> None:
    flags = (f"--annotation=terok.scope={SCOPE}", "--user", "1000")
    house.podman("create", "--name", container, *flags, house.image, "sh", "-c", SCRIPT)
    check(house.podman("start", "--attach", container).stdout)


def test_profiles_alone_give_the_firewall_alone(house: House, container: str) -> None:
    flag = f"--annotation=terok.shield.profiles={SCOPE}"
    out = house.podman("run", "--name", container, flag, house.image, "sh", "-c", SCRIPT, check=False).stdout
    assert "nameserver 127.0.0.1" in out
    assert "vault.sock" not in out
    assert statuses(house)[0]["profiles"] == [SCOPE]


@pytest.mark.parametrize("scope", ["nope", "../x", "a b"])
def test_an_unknown_scope_is_refused(house: House, container: str, scope: str) -> None:
    flag = f"--annotation=terok.scope={scope}"
    done = house.podman("run", "--name", container, flag, house.image, "true", check=False)
    assert done.returncode != 0
    log = Path(house.layout.data, "hook-error.log")
    assert scope in log.read_text().splitlines()[-1]
    log.unlink()


POD = """\
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  annotations:
    terok.scope: {scope}
spec:
  restartPolicy: Never
  containers:
    - name: main
      image: {image}
      command: [sh, -c, "sleep 1000"]
"""


def test_kube_play_is_refused_where_the_network_is_a_pods(house: House, container: str, tmp_path: Path) -> None:
    path = tmp_path / "pod.yml"
    path.write_text(POD.format(name=container, scope=SCOPE, image=house.image))
    done = house.podman("kube", "play", "--network", "slirp4netns", str(path), check=False)
    try:
        assert done.returncode != 0
    finally:
        house.podman("kube", "down", str(path), check=False)
        house.podman("pod", "rm", "--force", "--all", check=False)


def test_the_composer_alone_says_what_is_wrong(house: House, nothing_left: None) -> None:
    program = Path(__file__).parents[2] / "runtime/annotated.py"
    places = (house.layout.data, house.layout.runtime, house.layout.config)
    for state in ("", "[]", "{}", '{"id": "x"}', '{"id": "../../x", "bundle": "/nonexistent"}'):
        done = house.run([str(house.program.parent / "python"), str(program), *places], stdin=state, check=False)
        assert done.returncode in (Exit.FAILURE, Exit.USAGE), state
        assert done.stderr.strip(), state
        assert "Traceback" not in done.stderr, state
    assert not [each for each in Path(house.layout.containers).glob("*") if each.is_dir()]
