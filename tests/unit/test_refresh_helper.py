"""The process that refreshes logins: it answers every question, and an exchange outlives the container."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from terok_host.sidecars.login.helper import Helper
from terok_host.sidecars.login.slot import Slot
from terok_host.sidecars.store import keys
from terok_host.sidecars.store.credential import parse
from terok_host.sidecars.store.store import Store
from terok_host.supervisor.ground import process
from terok_host.supervisor.ground.layout import Layout
from tests.standins.logins import TokenServer, get
from tests.standins.stores import ended, unlocked

# the token endpoint is a thread of the test; its children use nothing that the thread could hold locked
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


@pytest.fixture
def helper(logged_in: Layout, endpoint: TokenServer) -> Iterator[Helper]:
    write_routes(logged_in, endpoint)
    started = start_helper(logged_in)
    yield started
    started.close()
    assert ended(started.pid) == 0


def write_routes(logged_in: Layout, endpoint: TokenServer) -> None:
    from terok_host.sidecars.roster import files

    path = Path(logged_in.roster) / "test.yml"
    path.parent.mkdir(parents=True)
    path.write_text(
        "providers:\n  anthropic:\n    extends: anthropic\n    allow_private: true\n"
        f"    ca_bundle: {endpoint.ca_file}\n    refresh: {{url: {endpoint.url}, client_id: x}}\n"
    )
    files.write_routes(logged_in)


def start_helper(logged_in: Layout) -> Helper:
    return Helper.start(
        store=logged_in.vault_db,
        routes=logged_in.vault_routes,
        key_files=keys.key_files(logged_in),
        directory=logged_in.vault_refresh,
    )


def receive(helper: Helper) -> Any:
    waiting = select.poll()
    waiting.register(helper.fileno(), select.POLLIN)
    assert waiting.poll(20_000)
    answers = helper.receive()
    assert answers is not None
    return answers[0]


def test_the_helper_refreshes_and_reports(logged_in: Layout, endpoint: TokenServer, helper: Helper) -> None:
    with Store.open(logged_in.vault_db, read_only=True) as store:
        before = store.describe("credential")[0].version
        assert helper.ask("work", "anthropic")
        answer = receive(helper)
        assert (answer.version, answer.error) == (before + 1, "")
        assert helper.ask("work", "github")
        assert "no login" in receive(helper).error
        assert helper.ask("work", "nothing")
        assert "no provider" in receive(helper).error
    assert helper.receive() == []


def test_the_helper_is_confined(logged_in: Layout, endpoint: TokenServer, helper: Helper) -> None:
    assert helper.ask("work", "nothing")
    receive(helper)
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{helper.pid}/status").read_text().splitlines())
    assert status["NoNewPrivs"] == "1"
    assert int(status["CapEff"], 16) == 0


def test_the_helper_reports_a_locked_vault(logged_in: Layout, endpoint: TokenServer, helper: Helper) -> None:
    os.unlink(logged_in.vault_key)
    assert helper.ask("work", "anthropic")
    answer = receive(helper)
    assert answer.fix == "terok vault unlock"
    assert endpoint.requests == 0


def test_a_killed_exchange_is_answered_for(logged_in: Layout, endpoint: TokenServer, helper: Helper) -> None:
    endpoint.hold.clear()
    assert helper.ask("work", "anthropic")
    assert endpoint.asked.wait(20)
    (child,) = (int(each) for each in Path(f"/proc/{helper.pid}/task/{helper.pid}/children").read_text().split())
    os.kill(child, signal.SIGKILL)
    answer = receive(helper)
    assert (answer.version, "was killed" in answer.error) == (None, True)
    endpoint.hold.set()


def test_a_damaged_store_is_reported(logged_in: Layout, endpoint: TokenServer, helper: Helper) -> None:
    Path(logged_in.vault_db).write_bytes(b"no database, and long enough to be taken for a damaged one" * 100)
    for name in ("-wal", "-shm"):
        Path(logged_in.vault_db + name).unlink(missing_ok=True)
    assert helper.ask("work", "anthropic")
    assert receive(helper).error


def test_an_exchange_outlives_the_container(logged_in: Layout, endpoint: TokenServer) -> None:
    write_routes(logged_in, endpoint)
    endpoint.hold.clear()
    ready, told = os.pipe()

    def vault() -> int:
        os.setpgid(0, 0)
        helper = start_helper(logged_in)
        helper.ask("work", "anthropic")
        os.write(told, helper.pid.to_bytes(4, "big"))
        signal.pause()
        return 0

    pid = process.fork(vault)
    helper_pid = int.from_bytes(os.read(ready, 4), "big")
    os.close(ready)
    os.close(told)
    gone = process.pidfd(helper_pid)
    assert endpoint.asked.wait(20)
    os.killpg(pid, signal.SIGKILL)
    assert ended(pid) == -signal.SIGKILL
    assert process.wait_gone(gone, 20)
    os.close(gone)
    endpoint.hold.set()
    # the lock is free when the exchange has come to its end
    with Slot(logged_in.vault_refresh, "work", "anthropic"), unlocked(logged_in) as store:
        assert parse(get(store)).secret == "access-1"
    assert endpoint.requests == 1
