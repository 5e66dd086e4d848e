"""Fixtures of the tests about the signer: an operator with keys, a pinned host, a running signer."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest

from tests.standins.signer import Operator, Signer
from tests.standins.ssh_client import Host


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Operator, Host, dict[str, bytes]]:
    """An operator with an Ed25519 and an RSA key for `work`, a host that is pinned, and the keys' blobs."""
    operator, host = Operator(tmp_path_factory.mktemp("operator")), Host()
    operator.terok("ssh", "generate", "plain", "--scope", "work")
    operator.terok("ssh", "generate", "rsa", "--type", "rsa", "--bits", "2048", "--scope", "work")
    operator.terok("ssh", "generate", "asks", "--scope", "asking")
    operator.terok("ssh", "policy", "asks", "--confirm", "yes")
    operator.terok("ssh", "trust", "forge.example", "--scope", "work", "--key", host.line)
    blobs = {line["name"]: base64.b64decode(line["public"].split()[1]) for line in operator.json("ssh", "pub")}
    return operator, host, blobs


@pytest.fixture
def operator(made: tuple[Operator, Host, dict[str, bytes]]) -> Operator:
    return made[0]


@pytest.fixture
def host(made: tuple[Operator, Host, dict[str, bytes]]) -> Host:
    return made[1]


@pytest.fixture
def blobs(made: tuple[Operator, Host, dict[str, bytes]]) -> dict[str, bytes]:
    return made[2]


@pytest.fixture
def signer(operator: Operator) -> Iterator[Signer]:
    with Signer(operator, "work") as running:
        yield running
