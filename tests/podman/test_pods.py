"""Pods: one network, one set of rules and services, which the first container brings and later ones join."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import leaks, scope
from tests.lab.house import House
from tests.standins.dns import Resolver
from tests.standins.upstream import Upstream

PATIENT = ("sh", "-c", "trap exit TERM; sleep 1000 & wait")
SHIELD = f"--annotation=terok.shield.profiles={scope.PROFILE}"
SCOPE = f"--annotation=terok.scope={scope.SCOPE}"


@pytest.fixture
def pod(house: House, name: str, resolver: Resolver) -> Iterator[str]:
    """An empty pod, whose infra container has no annotation of ours."""
    scope.furnish(house)
    yield f"{name}-pod"
    house.podman("pod", "rm", "--force", "--time", "0", "--ignore", f"{name}-pod")
    stale = [path.name for path in Path(house.layout.containers).iterdir() if not path.name.startswith(".")]
    house.terok("cleanup", *stale) if stale else None


@pytest.fixture
def by_default(house: House) -> Iterator[None]:
    """Meanwhile every container of the operator is shielded, as containers.conf can have it."""
    path = house.home / ".config/containers/containers.conf.d/60-shield.conf"
    path.write_text(f'[containers]\nannotations = ["terok.shield.profiles={scope.PROFILE}"]\n')
    yield
    path.unlink()


def start(house: House, pod: str, number: int, *flags: str) -> str:
    return house.podman(
        "run", "--detach", "--pod", pod, "--name", f"{pod}-{number}", *flags, house.image, *PATIENT
    ).stdout.strip()


def refusal(house: House, pod: str, number: int, *flags: str) -> str:
    done = house.podman(
        "run", "--detach", "--pod", pod, "--name", f"{pod}-{number}", *flags, house.image, *PATIENT, check=False
    )
    assert done.returncode != 0
    return Path(house.layout.hook_error).read_text().splitlines()[-1]


def reaches(house: House, name: str, host: str) -> bool:
    return house.podman("exec", name, "curl", "-sS", "-m", "5", f"http://{host}/", check=False).returncode == 0


@pytest.mark.usefixtures("by_default")
def test_with_a_default_annotation_every_container_of_a_pod_starts_and_is_shielded(
    house: House, pod: str, resolver: Resolver
) -> None:
    before = leaks.take(house, bundles=False)
    house.podman("pod", "create", "--name", pod)
    with (
        Upstream(None, resolver.records[scope.ALLOWED][0], 80),
        Upstream(None, resolver.records[scope.DENIED][0], 80),
    ):
        for number in (1, 2):
            start(house, pod, number)
            assert reaches(house, f"{pod}-{number}", scope.ALLOWED)
            assert not reaches(house, f"{pod}-{number}", resolver.records[scope.DENIED][0])
        assert "UNPROTECTED" not in house.terok("status").stdout
        house.podman("restart", "--time", "0", f"{pod}-2")
        assert reaches(house, f"{pod}-2", scope.ALLOWED)
    house.podman("pod", "rm", "--force", "--time", "0", pod)
    rest = leaks.left(house, before, within=3, bundles=False)
    assert not rest, "left behind:\n" + "\n".join(rest)


def test_later_containers_join_the_services_of_the_first_where_the_scope_is_the_same(house: House, pod: str) -> None:
    house.podman("pod", "create", "--name", pod)
    first = start(house, pod, 1, SHIELD, SCOPE)
    start(house, pod, 2, SHIELD, SCOPE)
    for number in (1, 2):
        assert (
            "ED25519"
            in house.podman(
                "exec", f"{pod}-{number}", "sh", "-c", "SSH_AUTH_SOCK=/run/terok/ssh-agent.sock ssh-add -l"
            ).stdout
        )
    audit = Path(house.bundle(first[:12]).audit).read_text().splitlines()
    assert [line["event"] for line in map(json.loads, audit) if line["source"] == "hook"] == ["joined"]


def test_what_cannot_join_is_refused_with_a_sentence(house: House, pod: str) -> None:
    house.podman("pod", "create", "--name", pod)
    start(house, pod, 1, SHIELD, SCOPE)
    assert "with the scope work, and this one asks for none" in refusal(house, pod, 2, SHIELD)
    said = refusal(house, pod, 3, "--annotation=terok.shield.profiles=other", SCOPE)
    assert "terok.shield.profiles=lab, and this one asks for other" in said
    assert "may use CAP_NET_RAW" in refusal(house, pod, 4, SHIELD, SCOPE, "--cap-add=NET_RAW")
