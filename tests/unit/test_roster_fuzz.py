"""Whatever a roster file holds, it compiles or is refused with its place; nothing else ever escapes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from terok_host.sidecars.roster import agents, catalog, compile, files
from terok_host.sidecars.roster.nodes import RosterError

TEXTS = [path.read_text() for path in sorted(Path(files.bundled()).glob("*.yml"))]
PIECES = [
    "", "null", "~", "[]", "{}", "- ", ": ", "\n", "  ", "!number x", "!!binary aGk=", "&a", "*a", "? [x]", "'", '"',
    "1e99", "-1", "0x10", "true", "\u0000", "\ud7ff", '"\\uD800"', "${nothing}", "${token}", "{hex:1}", "providers",
    "a" * 300,
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A bundled file with a few places cut out, doubled or overwritten."""
    text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 60)))
        text = text[:start] + draw(st.sampled_from(PIECES)) + text[end:]
    return text


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damaged())
def test_a_damaged_file_compiles_or_is_refused_with_its_place(tmp_path: Path, text: str) -> None:
    path = tmp_path / "damaged.yml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    others = [each for each in Path(files.bundled()).glob("*.yml") if each.read_text() not in text]
    try:
        found = compile.compile_files([*sorted(map(str, others)), str(path)])
    except RosterError as error:
        assert re.match(r".*\.yml:\d+", str(error))
        return
    catalog.dump(found)
    for provider in found.providers.values():
        for kind in provider.auth:
            agents.phantom(provider, {"auth": kind}).encode()


@pytest.mark.parametrize("text", [
    "providers:\n  x: &a {title: x, auth: {oauth: {header: A, token: jwt, claims: &b [*b]}}}\n",
    "agents:\n  x: {title: x, providers: [], files: [{path: ~/x, json: &b {a: *b}}]}\n",
    "a: &a [*a]\n",
    "agents:\n  x: {title: x, providers: [], env: {A: \"\\uD800\"}}\n",
    "[" * 5000,
    "agents:\n  x: {title: x, providers: [], files: [{path: ~/x, json: " + "[" * 500 + "]" * 500 + "}]}\n",
    "\x00",
])  # fmt: skip
def test_recursion_and_broken_text_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "hostile.yml"
    path.write_text(text)
    with pytest.raises(RosterError):
        compile.compile_files([str(path)])
