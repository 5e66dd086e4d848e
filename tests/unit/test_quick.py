"""The hook's own JSON agrees with the standard library's."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terok_host.supervisor.ground import quick

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=30,
)


@given(VALUES)
def test_what_is_written_is_read_again_by_both(value: object) -> None:
    assert json.loads(quick.dumps(value)) == value
    assert json.loads(quick.dumps(value, None)) == value
    assert "\n" not in quick.dumps(value, None)
    assert quick.loads(quick.dumps(value)) == value


@given(VALUES, st.sampled_from(["", " ", "\n\t "]))
def test_what_the_standard_library_writes_is_read(value: object, space: str) -> None:
    assert quick.loads((space + json.dumps(value) + space).encode()) == value


@given(st.text(alphabet='{}[]",:0123456789.eE+-truefalsn \\u\n'))
def test_both_refuse_the_same(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError):
            quick.loads(text)
    else:
        assert quick.loads(text) == expected


@pytest.mark.parametrize("text", ["", " ", "NaN", "Infinity", "{} x", "[1]]", '{"a" 1}', '"\n"'])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        quick.loads(text)


def test_deep_nesting_is_bounded() -> None:
    with pytest.raises(RecursionError):
        quick.loads("[" * 200_000)


def test_only_json_values_are_written() -> None:
    with pytest.raises(TypeError):
        quick.dumps({"a": b"bytes"})
