"""Fixtures that several test files share."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from terok_host.sidecars.gate.forge import sync
from terok_host.sidecars.store import keys
from terok_host.supervisor.ground.layout import Layout
from tests.standins.authority import Authority
from tests.standins.gate import Rig, make_upstream
from tests.standins.logins import TokenServer, put
from tests.standins.stores import unlocked
from tests.standins.upstream import Upstream
from tests.standins.vault import Vault, provider


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """One authority for the session: keys are slow to make."""
    return Authority(tmp_path_factory.mktemp("ca") / "ca.pem", "localhost", "127.0.0.1")


@pytest.fixture
def upstream(authority: Authority) -> Iterator[Upstream]:
    """A TLS upstream."""
    with Upstream(authority.context) as made:
        yield made


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A gate of a small repository, in the mode gatekeeping, running."""
    made = Rig(tmp_path)
    settings = made.configure(make_upstream(tmp_path / "up.git"))
    sync.synchronise(made.site, settings)
    made.start()
    yield made
    made.stop()
    assert made.log.read_text() == ""


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[TokenServer]:
    """A provider's token endpoint."""
    running = TokenServer(tmp_path)
    yield running
    running.close()


@pytest.fixture
def logged_in(tmp_path: Path) -> Layout:
    """Where a vault with one login lies."""
    made = Layout(str(tmp_path / "data"), str(tmp_path / "run"), str(tmp_path / "config"))
    keys.create_vault(made)
    with unlocked(made) as store:
        put(store)
    return made


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory whose path leaves room for socket names."""
    with tempfile.TemporaryDirectory(prefix="tk", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
def make_vault(short_dir: Path, authority: Authority, upstream: Upstream) -> Iterator[Callable[..., Vault]]:
    """Makes vaults with a provider `p` that leads to `upstream`; changes go into the provider."""
    made: list[Vault] = []

    def make(
        *,
        idle_seconds: int = 0,
        settings: dict[str, Any] | None = None,
        container: str = "box",
        **changes: Any,
    ) -> Vault:
        providers = {"p": provider(f"https://localhost:{upstream.port}", **{"ca_bundle": authority.file, **changes})}
        vault = Vault(short_dir / "v", providers, idle_seconds=idle_seconds, settings=settings, container=container)
        made.append(vault)
        return vault

    yield make
    for vault in made:
        vault.__exit__()


@pytest.fixture
def vault(make_vault: Callable[..., Vault]) -> Vault:
    """A vault as it comes."""
    return make_vault()
