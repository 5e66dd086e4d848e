"""The vault's settings in the sidecar JSON: what is written is read, what older versions wrote too, the rest is not."""

from __future__ import annotations

import pytest

from terok_host.sidecars.vault.settings import read_settings, settings_for
from terok_host.supervisor.ground.errors import TerokError
from terok_host.supervisor.ground.layout import Layout

LAYOUT = Layout("/data", "/run", "/config")


def test_what_is_written_is_read() -> None:
    settings = read_settings(settings_for(LAYOUT, audit_required=False, tls_hosts=["api.example.com:443"]))
    assert settings.store == LAYOUT.vault_db
    assert settings.key_files == (LAYOUT.unlocked_key, LAYOUT.vault_key)
    assert settings.tls_hosts == ("api.example.com:443",)
    assert not settings.audit_required


def test_what_an_older_version_did_not_write_has_its_default() -> None:
    document = settings_for(LAYOUT)
    for name in ("gates", "audit_required", "tls_hosts"):
        del document[name]
    settings = read_settings(document)
    assert settings.gates == LAYOUT.vault_gates
    assert settings.audit_required
    assert settings.tls_hosts == () and settings.limits == {}


@pytest.mark.parametrize(
    "change",
    [
        {"store": 1},
        {"routes": None},
        {"key_files": "/run/key"},
        {"key_files": [1]},
        {"audit_required": 0},
        {"tls_hosts": ["a", None]},
        {"limits": []},
        {"more": 1},
    ],
)
def test_anything_else_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(TerokError, match="not understood"):
        read_settings({**settings_for(LAYOUT), **change})
