"""Containers that carry one annotation and were never prepared: `podman run`, `create`, `kube play`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from terok_host.supervisor.ground.errors import Exit
from tests.lab.house import House

SCOPE = "myproj"
SCRIPT = "ls /run/terok; cat /run/terok/env /etc/resolv.conf"
PODS_SCRIPT = "PATH=/bin; " + SCRIPT
"""Podman 4's kube play sets no PATH."""


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
      command: [/bin/sleep, "1000"]
"""


@pytest.fixture
def pod(house: House, container: str, tmp_path: Path) -> Iterator[Path]:
    """A pod of one annotated container, as YAML; afterwards pod and pause image are gone."""
    path = tmp_path / "pod.yml"
    path.write_text(POD.format(name=container, scope=SCOPE, image=house.image))
    yield path
    house.podman("kube", "down", str(path), check=False)
    house.podman("pod", "rm", "--force", "--all", "--time", "0", check=False)


def test_kube_play_with_one_container(house: House, container: str, pod: Path) -> None:
    house.podman("kube", "play", "--network", "slirp4netns", str(pod))
    main = f"{container}-main"
    check(house.podman("exec", main, "/bin/sh", "-c", PODS_SCRIPT).stdout)
    assert "127.0.0.1:9419" in house.podman("exec", main, "/bin/netstat", "-ltn").stdout
    assert [each["state"] for each in statuses(house)] == ["running"]
    house.podman("stop", "--time", "0", main)
    house.podman("start", main)
    check(house.podman("exec", main, "/bin/sh", "-c", PODS_SCRIPT).stdout)


def test_the_second_container_of_a_kube_pod_joins_the_first(house: House, container: str, pod: Path) -> None:
    text = pod.read_text()
    other = text[text.index("    - name: main") :].replace("main", "other")
    pod.write_text(text + other)
    house.podman("kube", "play", "--network", "slirp4netns", str(pod))
    for name in ("main", "other"):
        check(house.podman("exec", f"{container}-{name}", "/bin/sh", "-c", PODS_SCRIPT).stdout)
    assert [each["state"] for each in statuses(house)] == ["running"]
    for name in ("other", "main"):  # and any of them may be started again
        house.podman("restart", "--time", "0", f"{container}-{name}")
        check(house.podman("exec", f"{container}-{name}", "/bin/sh", "-c", PODS_SCRIPT).stdout)


def test_a_pod_in_which_an_unserved_container_runs_is_refused(house: House, container: str) -> None:
    house.podman("pod", "create", "--name", container)
    try:
        house.podman("run", "--detach", "--pod", container, house.image, "sleep", "1000")
        flag = f"--annotation=terok.scope={SCOPE}"
        done = house.podman("run", "--detach", "--pod", container, flag, house.image, "sleep", "1000", check=False)
        log = Path(house.layout.data, "hook-error.log")
        assert done.returncode != 0 and "Other processes run in the pod's network" in log.read_text().splitlines()[-1]
        log.unlink()
    finally:
        house.podman("pod", "rm", "--force", "--time", "0", container)


def test_the_composer_alone_says_what_is_wrong(house: House, nothing_left: None) -> None:
    program = Path(__file__).parents[2] / "runtime/launch/annotated.py"
    places = (house.layout.data, house.layout.runtime, house.layout.config)
    for state in ("", "[]", "{}", '{"id": "x"}', '{"id": "../../x", "bundle": "/nonexistent"}'):
        done = house.run([str(house.program.parent / "python"), str(program), *places], stdin=state, check=False)
        assert done.returncode in (Exit.FAILURE, Exit.USAGE), state
        assert done.stderr.strip(), state
        assert "Traceback" not in done.stderr, state
    assert not [each for each in Path(house.layout.containers).glob("*") if each.is_dir()]
