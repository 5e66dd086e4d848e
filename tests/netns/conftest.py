"""Fixtures for tests of the firewall in network namespaces of their own; see `world`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.world import World
from tests.standins.nameserver import NameServer


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A box and the rest of the internet, for one test."""
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture
def names(world: World) -> Iterator[NameServer]:
    """The name server at the forwarder's address."""
    with NameServer(world) as server:
        yield server
