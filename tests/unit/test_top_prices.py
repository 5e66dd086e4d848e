"""What tokens cost: the shipped table, rows of the operator's own, and the vault's counts at these prices."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest

from terok_host.runtime.top import prices
from terok_host.runtime.top.gather import Watch
from terok_host.runtime.top.model import Usage
from terok_host.sidecars.kit.strict_yaml import YamlError
from terok_host.sidecars.vault.books.ledger import Ledger, ModelRow
from terok_host.supervisor.ground.errors import Exit, TerokError
from tests.standins.decisions import Operator

MILLION = 1_000_000


def row(model: str, *counts: int) -> ModelRow:
    return ModelRow("work", "box", "p", model, *counts)


def test_the_shipped_table_is_dated_and_whole() -> None:
    table = prices.load(None)
    assert table.date == "2026-06" and table.currency == "USD"
    for model, price in table.models.items():
        assert price.output >= price.input >= price.cached > 0, model
        assert price.written >= price.input, model


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("claude-sonnet-4-6", "claude-sonnet-4-6"),
        ("claude-sonnet-4-6-20260217", "claude-sonnet-4-6"),
        ("claude-opus-4-20250514", "claude-opus-4"),
        ("claude-3-5-haiku-latest", "claude-3-5-haiku"),
        ("gpt-5-2025-08-07", "gpt-5"),
        ("gpt-5-codex", "gpt-5-codex"),
        ("gemini-3.1-pro-preview", "gemini-3.1-pro"),
        ("gemini-2.5-flash-lite", "gemini-2.5-flash-lite"),
        ("gemini-2.5-flash-preview-09-2025", "gemini-2.5-flash"),
        ("claude-opus-4-9", None),
        ("gpt-5.9", None),
        ("gpt-5-turbo", None),
        ("claude-sonnet-4-6-20260217-evil", None),
        ("", None),
    ],
)
def test_a_price_stands_for_dated_versions_and_no_other_model(model: str, name: str | None) -> None:
    table = prices.load(None)
    assert table.of(model) == (None if name is None else table.models[name])


def test_cached_and_written_input_have_their_own_prices() -> None:
    price = prices.Price(input=3.0, output=15.0, cached=0.3, written=3.75)
    assert price.cost(row("m", 4 * MILLION, MILLION, 2 * MILLION, MILLION)) == pytest.approx(3 + 15 + 0.6 + 3.75)
    # counts that contradict each other: no negative amount
    assert price.cost(row("m", 1, 0, 5, 5)) > 0


def test_rows_of_ones_own_replace_and_add(tmp_path: Path) -> None:
    own = tmp_path / "prices.yml"
    rows = "  gpt-5: {input: 1, output: 2}\n  mine: {input: 0.5, cached: 0.1, output: 1}\n"
    own.write_text(f"date: 2026-11\nmodels:\n{rows}")
    table = prices.load(str(own))
    assert (table.date, table.currency) == ("2026-11", "USD")
    assert table.models["gpt-5"] == prices.Price(1, 2, 1, 1)
    assert table.models["mine"].cached == 0.1 and "claude-sonnet-4-6" in table.models
    own.write_text("currency: EUR\nmodels: {mine: {input: 1, output: 2}}\n")
    assert list(prices.load(str(own)).models) == ["mine"]  # two currencies are not added up


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("", "1:1", "a price table is a mapping"),
        ("- 1\n", "1:1", "a price table is a mapping"),
        ("dates: 1\n", "1:1", "unknown key 'dates'"),
        ("date: soon\n", "1:7", "expected a date"),
        ("models: {a: {input: 1}}\n", "1:13", "a price has input and output"),
        ("models: {a: {input: 1, output: -1}}\n", "1:32", "expected an amount"),
        ("models: {a: {input: 1e99, output: 1}}\n", "1:21", "expected an amount"),
        ("models: {a: {input: .inf, output: 1}}\n", "1:21", "expected an amount"),
        ("models: {a: {inputs: 1}}\n", "1:14", "unknown key 'inputs'"),
        ("models: {a: {input: 1, output: 1}, a: {input: 1, output: 1}}\n", "1:36", "given twice"),
    ],
)
def test_a_wrong_table_is_refused_with_its_place(tmp_path: Path, text: str, place: str, problem: str) -> None:
    with pytest.raises(YamlError, match=problem):
        prices.parse(text)
    path = tmp_path / "prices.yml"
    path.write_text(text)
    with pytest.raises(TerokError) as caught:
        prices.load(str(path))
    assert caught.value.code == Exit.USAGE and caught.value.what.startswith(f"{path}:{place}: ")


def test_a_table_that_is_absent_is_said() -> None:
    with pytest.raises(TerokError, match="Could not read the price table /nowhere") as caught:
        prices.load("/nowhere")
    assert caught.value.fix == "terok config set top.prices null"


def test_counts_at_these_prices(tmp_path: Path) -> None:
    operator = Operator(tmp_path)
    operator.hold("box")
    ledger = Ledger(operator.layout.vault_usage)
    hour = int(time.time()) // 3600
    ledger.add(
        {("work", "box", "anthropic", hour): [3, 0, 0, 3 * MILLION, MILLION, MILLION]},
        {
            ("work", "box", "anthropic", "claude-sonnet-4-6", hour): [2 * MILLION, MILLION, MILLION, 0],
            ("work", "box", "anthropic", "unheard-of", hour): [MILLION // 2, 0, 0, 0],
        },
    )
    watch = Watch(operator.env(io.StringIO(), json_output=False))
    usage = watch.look(time.time()).usage
    assert usage._replace(cost=0.0) == Usage(3, 3 * MILLION, MILLION, MILLION, 0.0, MILLION)
    assert usage.cost == pytest.approx(3 + 15 + 0.3)
    ledger.add({("work", "box", "anthropic", hour): [1, 0, 0, 0, 0, 0]})
    assert watch.look(time.time()).usage.requests == 4  # another process wrote
    ledger.close()
    watch.close()
