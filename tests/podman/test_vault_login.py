"""`terok auth --login`: the vendor's program runs in a throw-away container; only what was asked for comes out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from terok_host.sidecars.store import keys
from terok_host.sidecars.store.store import Store
from terok_host.supervisor.ground.errors import Exit
from tests.lab.house import House

# a command's words have no spaces: the shell in the image makes them
LOGIN = "printf${IFS}%s${IFS}toy-$(id${IFS}-u)-$HOME>$HOME/.toy"
HOSTILE = "ln${IFS}-s${IFS}/etc/hostname${IFS}$HOME/.toy"
ROSTER = """\
agents:
  toy:
    title: a vendor's program
    providers: [mistral]
    capture:
      - {{provider: mistral, auth: api-key, file: ~/.toy, format: text, fields: {{secret: "*"}}, command: {command}}}
"""


@pytest.fixture
def roster(house: House) -> Iterator[Path]:
    path = Path(house.layout.roster) / "toy.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    yield path
    path.unlink()


@pytest.fixture
def scope(house: House) -> Iterator[str]:
    yield "login-test"
    house.terok("vault", "remove", "login-test", "mistral", check=False)


def command(script: str) -> str:
    return ROSTER.format(command=json.dumps(["/bin/sh", "-c", script]))


def leftovers(house: House) -> list[str]:
    directory = Path(house.layout.runtime) / ".auth"
    return os.listdir(directory) if directory.exists() else []


def test_a_login_is_captured_and_its_home_is_gone(house: House, roster: Path, scope: str) -> None:
    roster.write_text(command(LOGIN))
    done = house.terok("auth", "toy", "--scope", scope, "--login", house.image, "--json")
    assert json.loads(done.stdout)["stored"] == [f"{scope}/mistral"]
    assert "toy-0" not in done.stdout + done.stderr
    layout = house.layout
    with Store.open(layout.vault_db) as store:
        keys.ensure_unlocked(store, keys.key_files(layout))
        item = store.get("credential", scope, "mistral")
        assert item is not None
        assert item.secret == b"toy-0-/terok-home"
    assert leftovers(house) == []


def test_a_login_that_leaves_a_link_gives_nothing(house: House, roster: Path, scope: str) -> None:
    roster.write_text(command(HOSTILE))
    done = house.terok("auth", "toy", "--scope", scope, "--login", house.image, check=False)
    assert done.returncode == Exit.FAILURE
    assert "left no ~/.toy" in done.stderr
    assert leftovers(house) == []


def test_a_login_that_fails_says_so(house: House, roster: Path, scope: str) -> None:
    roster.write_text(command("exit${IFS}7"))
    done = house.terok("auth", "toy", "--scope", scope, "--login", house.image, check=False)
    assert done.returncode == Exit.FAILURE
    assert "exit code 7" in done.stderr
    missing = house.terok("auth", "toy", "--scope", scope, "--login", "localhost/no-such-image:1", check=False)
    assert missing.returncode == Exit.FAILURE
    assert leftovers(house) == []


def test_clean_looks_into_what_containers_mount(house: House, name: str) -> None:
    house.terok("vault", "add", "clean-test", "mistral", stdin="leaked-secret-value")
    mount = house.home / "project"
    mount.mkdir()
    (mount / "notes").write_text("leaked-secret-value")
    house.terok("run", name, "--", "--detach", "--volume", f"{mount}:/project", house.image, "sleep", "60", timeout=60)
    done = house.terok("vault", "clean", "--json", check=False)
    assert done.returncode == Exit.MANUAL, done.stderr
    assert [each["path"] for each in json.loads(done.stdout)["found"]] == [str(mount / "notes")]
    house.terok("vault", "clean", "--yes")
    assert not (mount / "notes").exists()
    house.terok("vault", "remove", "clean-test", "mistral")
