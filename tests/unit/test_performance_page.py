"""The page of the figures agrees with the committed results, and shows every budget."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from bench import page
from bench.budgets import BUDGETS
from bench.run import PARTS


@pytest.fixture(name="results")
def _results() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(page.PAGE.read_text())
    return found


def test_the_page_is_what_its_command_makes(results: dict[str, Any]) -> None:
    made = page.page(results, str(page.PAGE.relative_to(page.ROOT)))
    pictures = {f"pictures/{path.name}" for path in page.DOCS.glob("pictures/performance-*.svg")}
    assert {name for name in made if name.endswith(".svg")} == pictures
    for name, text in made.items():
        assert (page.DOCS / name).read_text() == text, f"{name} is not made from the committed results: make bench-page"


def test_another_figure_gives_another_page(results: dict[str, Any]) -> None:
    changed = copy.deepcopy(results)
    changed["parts"]["start"]["figures"][0]["value"] += 1
    assert page.page(changed, "x")["performance.md"] != page.page(results, "x")["performance.md"]


def test_every_budget_is_measured(results: dict[str, Any]) -> None:
    rows = {row["what"]: row for part in results["parts"].values() for row in part["figures"]}
    missing = [
        name for budget in BUDGETS for name in budget.figures if name not in rows or rows[name]["budget"] is None
    ]
    assert not missing
    assert {budget.part for budget in BUDGETS} <= {*PARTS} == {*page.TITLES}


def test_a_missed_budget_says_why(results: dict[str, Any]) -> None:
    rows = {row["what"]: row | {"kept": False} for part in results["parts"].values() for row in part["figures"]}
    assert page.budgets(rows).count("missed") == len(BUDGETS)
    assert all(budget.why in page.budgets(rows) for budget in BUDGETS)


def test_only_what_moved_by_more_than_its_spread_is_named() -> None:
    def results(value: float) -> dict[str, Any]:
        row = {"what": "x", "value": value, "unit": "×", "spread": 0.05, "at_least": False}
        return {"parts": {"start": {"figures": [row]}}}

    assert page.compare(results(1.0), results(1.1)) == []
    assert page.compare(results(1.0), results(1.5)) == ["WORSE  x: 1 → 1.5 ×"]
    assert page.compare(results(1.0), results(0.5)) == ["better x: 1 → 0.5 ×"]
    assert page.compare({"parts": {}}, results(1.0)) == []
