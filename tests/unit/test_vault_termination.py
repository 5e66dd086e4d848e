"""`terok vault tls`: the switches that people turn, and what the launch makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from terok_host.runtime.kit.config import VaultConfig
from terok_host.runtime.launch.tls import wiring
from terok_host.runtime.vault import termination
from terok_host.sidecars.roster import files
from terok_host.supervisor.ground.errors import Exit
from terok_host.supervisor.ground.layout import Layout
from tests.standins.operator import Operator


@pytest.fixture
def terok(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Operator:
    return Operator(tmp_path, capsys, monkeypatch)


def configured(terok: Operator) -> VaultConfig:
    shown = json.loads(terok("vault", "tls", "--json").out)
    return VaultConfig(tls=shown["tls"], tls_except=tuple(shown["except"]))


def test_each_switch_and_back(terok: Operator, tmp_path: Path) -> None:
    catalogue = files.load(Layout(*[str(tmp_path)] * 3))[0]
    held: dict[str, dict[str, object]] = {"anthropic": {"auth": "api-key"}, "openai": {"auth": "api-key"}}

    def terminated(scope: str) -> set[str]:
        return {host.rpartition(":")[0] for host in wiring.decide(configured(terok), scope, catalogue, held).hosts}

    both = {"api.anthropic.com", "api.openai.com"}
    one, other = (both - {host} for host in sorted(both))
    for words, in_work, elsewhere in (
        ((), set[str](), set[str]()),
        (("--scope", "work"), set(), both),
        (("--host", "api.openai.com"), other, other),
        (("--host", "API.anthropic.com."), one, one),
        (("--scope", "work", "--host", "api.openai.com"), other, both),
    ):
        assert terok("vault", "tls", "off", *words).code == Exit.OK
        assert terok("vault", "tls", "off", *words).code == Exit.OK, "twice is once"
        assert len(configured(terok).tls_except) <= 1
        assert (terminated("work"), terminated("other")) == (in_work, elsewhere), words
        assert terok("vault", "tls", "on", *words).code == Exit.OK
        assert (terminated("work"), configured(terok)) == (both, VaultConfig()), words


def test_what_a_wider_entry_keeps_off_is_said(terok: Operator) -> None:
    for words in (("--scope", "work"), ("--host", "api.openai.com")):
        terok("vault", "tls", "off", *words)
    said = terok("vault", "tls", "on", "--scope", "work", "--host", "API.openai.com").err
    assert "`terok vault tls on --scope work`" in said and "`terok vault tls on --host api.openai.com`" in said
    shown = terok("vault", "tls").out
    assert "off for scope work\n" in shown and "off for every scope, host api.openai.com\n" in shown


def test_comments_and_other_entries_stay(terok: Operator) -> None:
    terok("config", "set", "vault.tls_except", "[one/, two.example]")
    path = Path(terok("config", "show").err.split()[1])
    path.write_text("# mine\n" + path.read_text())
    terok("vault", "tls", "off", "--scope", "work")
    terok("vault", "tls", "on", "--scope", "one")
    assert path.read_text().startswith("# mine\n")
    assert configured(terok).tls_except == ("two.example", "work/")


@pytest.mark.parametrize(
    "words", [("off", "--host", "https://x.example"), ("off", "--scope", "../x"), ("off", "--host", "198.51.100.1"),
              ("--scope", "work"), ("maybe",), ("off", "--host", "*.x.example")]
)  # fmt: skip
def test_what_is_no_scope_or_host_changes_nothing(terok: Operator, words: tuple[str, ...]) -> None:
    assert terok("vault", "tls", *words).code == Exit.USAGE
    assert configured(terok) == VaultConfig()


def test_an_entry_is_what_the_configuration_reads() -> None:
    assert [termination.entry(*pair) for pair in (("a", None), (None, "h.x"), ("a", "h.x"), (None, None))] == [
        "a/", "h.x", "a/h.x", ""
    ]  # fmt: skip
