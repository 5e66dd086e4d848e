"""What an operator's credential changes in a vault that runs: the keeper takes it from the store and the catalogue."""

from __future__ import annotations

from pathlib import Path

from terok_host.sidecars.roster import files
from terok_host.sidecars.store import keys
from terok_host.sidecars.store.store import Store
from terok_host.sidecars.vault.keeper import Keeper
from terok_host.sidecars.vault.routes import Route
from terok_host.sidecars.vault.tokens import Grant
from terok_host.supervisor.ground.layout import Layout


def test_a_credential_with_a_header_of_its_own_is_found_in_it(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path / "data"), str(tmp_path / "run"), str(tmp_path / "config"))
    keys.create_vault(layout)
    files.write_routes(layout)
    paths = keys.key_files(layout)
    with Store.open(layout.vault_db) as store, Store.open(layout.vault_db, read_only=True) as sidecar:
        keys.ensure_unlocked(store, paths)
        store.add_token("t" * 40, container="box", scope="work", provider="custom")
        keeper = Keeper(sidecar, layout.vault_routes, layout.vault_gates, paths, "box")
        keeper.look()
        assert b"x-team-key" not in keeper.places.headers
        meta = {
            "auth": "api-key",
            "upstream": "https://llm.example.com",
            "auth_header": "X-Team-Key",
            "auth_prefix": "",
        }
        store.put("credential", "work", "custom", b"secret", meta)
        keeper.look()
        assert b"x-team-key" in keeper.places.headers
        assert isinstance(keeper.route(Grant("work", "custom")), Route)
