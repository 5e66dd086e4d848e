"""What tokens cost: a dated table shipped with the program, and rows of the operator's own on top of it."""

from __future__ import annotations

import os
import re
from typing import NamedTuple, NoReturn

import yaml

from ...sidecars.kit import strict_yaml
from ...supervisor.ground.errors import Exit, TerokError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...sidecars.vault.books.ledger import ModelRow

SHIPPED = os.path.join(os.path.dirname(__file__), "prices.yml")
MILLION = 1_000_000
_VERSION = re.compile(r"-(?:[0-9]{3,8}|[0-9]{4}-[0-9]{2}-[0-9]{2}|latest|preview(?:-[0-9-]+)?)")
_AMOUNT = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6})?")
_FIELDS = ("input", "output", "cached", "written")


class Price(NamedTuple):
    """For a million tokens; `cached` and `written` are input read from and written to the provider's cache."""

    input: float
    output: float
    cached: float
    written: float

    def cost(self, row: ModelRow) -> float:
        """What the tokens of a row cost."""
        plain = max(0, row.input_tokens - row.cached_tokens - row.written_tokens)
        amounts = (
            plain * self.input,
            row.output_tokens * self.output,
            row.cached_tokens * self.cached,
            row.written_tokens * self.written,
        )
        return sum(amounts) / MILLION


class Prices(NamedTuple):
    """A price table; `date` says when its prices were current."""

    date: str
    currency: str
    models: Mapping[str, Price]

    def of(self, model: str) -> Price | None:
        """The price of a model or of a dated version of it; None when the table does not know it."""
        exact = self.models.get(model)
        if exact is not None:
            return exact
        for name, price in self.models.items():
            if model.startswith(name) and _VERSION.fullmatch(model, len(name)):
                return price
        return None

    def over(self, base: Prices) -> Prices:
        """These rows on top of those of another table."""
        return Prices(self.date or base.date, self.currency or base.currency, {**base.models, **self.models})


def load(path: str | None) -> Prices:
    """The shipped table, with the rows of a file on top.

    Args:
        path: `top.prices` of the configuration; None: the shipped table alone.

    Raises:
        TerokError: the file cannot be read (FAILURE) or is not such a table (USAGE), with line and column.
    """
    shipped = _read(SHIPPED)
    if path is None:
        return shipped
    own = _read(path)
    if own.currency not in ("", shipped.currency):
        return own  # amounts of two currencies cannot be added up
    return own.over(shipped)


def _read(path: str) -> Prices:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(strict_yaml.SIZE_MAX + 1)
    except OSError as error:
        raise TerokError(
            f"Could not read the price table {path}: {error.strerror}.", fix="terok config set top.prices null"
        ) from error
    try:
        return parse(text)
    except strict_yaml.YamlError as error:
        raise TerokError(f"{path}:{error.line}:{error.column}: {error.problem}.", code=Exit.USAGE) from error


def parse(text: str) -> Prices:
    """Read a price table; raises YamlError."""
    root = strict_yaml.compose(text)
    date = currency = ""
    models: dict[str, Price] = {}
    for name, key, value in _members(root, "a price table is a mapping"):
        if name == "date":
            date = _word(value, r"[0-9]{4}-[0-9]{2}(-[0-9]{2})?", "a date such as 2026-06")
        elif name == "currency":
            currency = _word(value, r"[A-Z]{3}", "three capital letters, such as USD")
        elif name == "models":
            models = {model: _price(price) for model, _, price in _members(value, "models is a mapping of names")}
        else:
            _refuse(key, f"unknown key {name[:60]!r}; the keys here are date, currency, models")
    return Prices(date, currency, models)


def _price(node: yaml.Node) -> Price:
    amounts: dict[str, float] = {}
    for name, key, value in _members(node, "a price is a mapping such as {input: 3, output: 15}"):
        if name not in _FIELDS:
            _refuse(key, f"unknown key {name[:60]!r}; the keys here are {', '.join(_FIELDS)}")
        amounts[name] = float(_word(value, _AMOUNT.pattern, "an amount for a million tokens"))
    if "input" not in amounts or "output" not in amounts:
        _refuse(node, "a price has input and output")
    base = amounts["input"]
    return Price(base, amounts["output"], amounts.get("cached", base), amounts.get("written", base))


def _members(node: yaml.Node | None, expected: str) -> list[tuple[str, yaml.Node, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        if node is None:
            raise strict_yaml.YamlError(expected)
        _refuse(node, expected)
    return list(strict_yaml.members(node))


def _word(node: yaml.Node, pattern: str, expected: str) -> str:
    if not isinstance(node, yaml.ScalarNode) or not re.fullmatch(pattern, node.value):
        _refuse(node, f"expected {expected}")
    return str(node.value)


def _refuse(node: yaml.Node, problem: str) -> NoReturn:
    mark = node.start_mark
    raise strict_yaml.YamlError(problem, mark.line + 1, mark.column + 1)
