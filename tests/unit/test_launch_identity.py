"""What a launch says of the vault: tokens and agents come from a real store."""

from __future__ import annotations

from pathlib import Path

from terok_host.runtime.kit.config import Config
from terok_host.runtime.launch import identity
from terok_host.runtime.launch.plan import WiringPlan
from terok_host.sidecars.store import keys
from terok_host.supervisor.ground import process
from terok_host.supervisor.ground.layout import Layout
from tests.standins.stores import ended, unlocked

PLAN = WiringPlan(scope="work", shield=True, gate=False, broker=True, ssh=False)


def notes(cfg: Config, name: str) -> str:
    bundle = cfg.layout.bundle(name)
    Path(bundle.root).mkdir(mode=0o700, parents=True)
    return "\n".join(identity.make(PLAN, None, cfg=cfg, bundle=bundle).notes)


def test_a_locked_vault_is_said_at_launch(tmp_path: Path) -> None:
    cfg = Config(Layout(f"{tmp_path}/data", f"{tmp_path}/run", f"{tmp_path}/config"))
    keys.create_vault(cfg.layout)
    with unlocked(cfg.layout) as store:
        store.put("credential", "work", "github", b"ghp_x", {"auth": "api-key"})

    def child() -> int:
        """A key that was once found stays in its process: each look has one of its own."""
        text = notes(cfg, "open")
        assert "locked" not in text, text
        return 0

    assert ended(process.fork(child)) == 0
    Path(cfg.layout.vault_key).rename(tmp_path / "key")
    text = notes(cfg, "locked")
    assert "The vault is locked" in text and "`terok vault unlock`" in text
