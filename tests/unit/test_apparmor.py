"""What is said when an AppArmor profile keeps dnsmasq from its files; the real thing is tried in tests/selinux."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from terok_host.runtime.host import apparmor
from terok_host.supervisor.ground.layout import Layout


def layout(tmp_path: Path) -> Layout:
    return Layout(data=str(tmp_path / "data"), runtime=str(tmp_path / "run"), config=str(tmp_path / "config"))


@pytest.mark.parametrize(("text", "expected"), [("Y\n", True), ("N\n", False), (None, False)])
def test_the_kernel_says_whether_it_has_apparmor(tmp_path: Path, text: str | None, expected: bool) -> None:
    path = tmp_path / "enabled"
    if text is not None:
        path.write_text(text)
    assert apparmor.enabled(str(path)) is expected


def test_the_addition_names_the_bundles_of_every_user_of_the_same_layout(tmp_path: Path) -> None:
    assert apparmor.addition(layout(tmp_path))[0] == f"owner {tmp_path}/data/containers/*/dnsmasq.* r,"
    home = os.path.expanduser("~")
    found = apparmor.addition(Layout(data=f"{home}/.local/share/terok", runtime="/r", config="/c"))
    assert found[0] == "owner @{HOME}/.local/share/terok/containers/*/dnsmasq.* r,"


def test_the_fix_can_be_pasted(tmp_path: Path) -> None:
    found = apparmor.Confinement("cannot read it", "/etc/p", "/etc/local/p", apparmor.addition(layout(tmp_path)))
    words = shlex.split(found.fix)
    assert words[:2] == ["printf", "%s\\n"]
    assert list(found.addition) == words[2 : words.index("|")]
    assert words[-3:] == ["apparmor_parser", "-r", "/etc/p"]
    assert "resolved once, at the start" in found.summary


def test_a_host_without_apparmor_pays_nothing(tmp_path: Path) -> None:
    if not apparmor.enabled():
        assert apparmor.confinement(layout(tmp_path)) is None
        assert not (tmp_path / "data").exists()
