"""What the process that parses the container's bytes cannot do any more."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from terok_host.sidecars.store import keys
from terok_host.sidecars.store.store import Store
from terok_host.sidecars.vault import main as vault_main
from terok_host.sidecars.vault.keeper import Keeper
from terok_host.sidecars.vault.settings import read_settings, settings_for
from terok_host.supervisor.ground import kernel, process
from tests.standins.upstream import Upstream
from tests.standins.vault import Vault

Make = Callable[..., Vault]


def test_the_process_gave_up_its_privileges(vault: Vault) -> None:
    assert vault.get("/small", vault.add("p")).status == 200
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{vault.pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert status["NoNewPrivs"] == "1"
    assert {status[name].strip("0") for name in ("CapEff", "CapPrm", "CapInh")} == {""}


@pytest.fixture
def confined(make_vault: Make, tmp_path: Path) -> Iterator[Callable[[Callable[[], object]], str]]:
    """Runs a function in a child that is confined as the vault is; returns how it ended: `done` or the error's name."""
    vault = make_vault()
    vault.add("p")
    files = keys.key_files(vault.layout)

    def run(work: Callable[[], object]) -> str:
        read, write = os.pipe()

        def child() -> int:
            keys.prepare(files)
            store = Store.open(vault.layout.vault_db, read_only=True)
            keeper = Keeper(store, vault.layout.vault_routes, vault.layout.vault_gates, files, "box")
            keeper.look()
            settings = read_settings(settings_for(vault.layout))
            assert vault_main.confine_vault(keeper, settings) == kernel.landlock_abi()
            try:
                work()
                os.write(write, b"done")
            except OSError as error:
                os.write(write, type(error).__name__.encode())
            return 0

        pid = process.fork(child)
        os.waitpid(pid, 0)
        os.close(write)
        with open(read, "rb") as pipe:
            return pipe.read().decode()

    yield run


def test_it_cannot_read_ssh_keys_nor_run_a_program(
    confined: Callable[[Callable[[], object]], str], tmp_path: Path, vault: Vault
) -> None:
    key = tmp_path / ".ssh" / "id_ed25519"
    key.parent.mkdir()
    key.write_text("private")
    assert confined(lambda: key.read_text()) == "PermissionError"
    assert confined(lambda: os.listdir(Path.home())) == "PermissionError"
    assert confined(lambda: Path("/etc/passwd").read_text()) == "PermissionError"
    assert confined(lambda: Path("/proc/1/environ").read_bytes()) == "PermissionError"
    assert confined(lambda: os.execv("/bin/true", ["true"])) == "PermissionError"  # noqa: S606 - it must fail
    assert confined(lambda: (tmp_path / "new").write_text("x")) == "PermissionError"
    assert confined(lambda: Path(vault.layout.vault_db).open("r+b")) == "PermissionError"
    assert confined(lambda: Path(vault.layout.vault_key).unlink()) == "PermissionError"
    assert confined(lambda: Path("/etc/resolv.conf").read_text()) == "done"


def test_it_connects_to_the_ports_of_its_routes_only(
    confined: Callable[[Callable[[], object]], str], upstream: Upstream
) -> None:
    refused = "PermissionError" if kernel.landlock_abi() >= 4 else "done"  # older ones do not know ports
    assert confined(lambda: socket.create_connection(("127.0.0.1", upstream.port)).close()) == "done"
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert confined(lambda: socket.create_connection(("127.0.0.1", port)).close()) == refused
    assert confined(lambda: socket.create_server(("127.0.0.1", 0)).close()) == refused
