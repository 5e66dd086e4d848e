"""Targets and profiles: what is understood, what is refused, and with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from terok_host.sidecars.shield import profiles
from terok_host.sidecars.shield.bundle import read_list
from terok_host.sidecars.shield.special import check_allowed
from terok_host.sidecars.shield.targets import Ports, Target, TargetError, parse
from terok_host.supervisor.ground.errors import TerokError


@pytest.mark.parametrize(
    ("text", "kind", "value", "ports"),
    [
        ("Example.COM.", "name", "example.com", Ports()),
        ("*.example.com", "below", "example.com", Ports()),
        ("example.com:22", "name", "example.com", Ports("tcp", 22, 22)),
        ("example.com:53/udp", "name", "example.com", Ports("udp", 53, 53)),
        ("_sip.example.com", "name", "_sip.example.com", Ports()),
        ("203.0.113.7", "host", "203.0.113.7", Ports()),
        ("203.0.113.7/32", "host", "203.0.113.7", Ports()),
        ("203.0.113.7/24", "range", "203.0.113.0/24", Ports()),
        ("203.0.113.0/24:5000-5010", "range", "203.0.113.0/24", Ports("tcp", 5000, 5010)),
        ("2001:DB8::7", "host", "2001:db8::7", Ports()),
        ("[2001:db8::7]:8443", "host", "2001:db8::7", Ports("tcp", 8443, 8443)),
        ("[2001:db8::/32]:53/udp", "range", "2001:db8::/32", Ports("udp", 53, 53)),
    ],
)
def test_targets(text: str, kind: str, value: str, ports: Ports) -> None:
    target = parse(text)
    assert target == Target(kind, value, ports)
    assert parse(str(target)) == target


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        "*",
        "*.",
        "a..b",
        "exa mple.com",
        "-x.com",
        "example.com:0",
        "example.com:70000",
        "example.com:22/icmp",
        "example.com:30-20",
        "1.2.3",
        "300.1.1.1",
        "1.2.3.4/33",
        "::ffff:1.2.3.4",
        "[1.2.3.4]:80",
        "foo;bar.com",
        "a/b.com",
        "a#b.com",
        "münchen.de",
        "x" * 64 + ".com",
        ".".join(["abcdefgh"] * 32),
    ],
)
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(TargetError):
        parse(text)


@pytest.mark.parametrize("text", ["169.254.169.254", "127.0.0.1", "fe80::1", "fd00:ec2::254", "224.0.0.1", "0.0.0.0"])
def test_what_is_never_allowed(text: str) -> None:
    with pytest.raises(TargetError, match="never reachable"):
        check_allowed(parse(text))


@pytest.mark.parametrize(
    ("text", "words"),
    [("10.1.2.3", "private"), ("8.0.0.0/8", "large"), ("fd12::/64", "private"), ("0.0.0.0/0", "large")],
)
def test_what_is_worth_a_note(text: str, words: str) -> None:
    assert any(words in note for note in check_allowed(parse(text)))
    assert check_allowed(parse("198.51.100.7")) == []


def test_bundled_profiles_are_sound() -> None:
    found = profiles.available(None)
    assert set(found) == {"base", "dev-node", "dev-python", "dev-standard", "nvidia-hpc"}
    for name in found:
        targets = profiles.load([name], None)
        assert len(targets) >= 20
        assert all(each.is_name for each in targets)


def test_a_users_profile_wins_and_several_are_joined(tmp_path: Path) -> None:
    (tmp_path / "base.txt").write_text("# mine\none.test\n\ntwo.test:22 # with a port\n")
    (tmp_path / "more.txt").write_text("one.test\nthree.test\n")
    assert [str(each) for each in profiles.load(["base", "more"], str(tmp_path))] == [
        "one.test",
        "two.test:22",
        "three.test",
    ]


def test_a_bad_line_is_said_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("one.test\n\nnot a name\n")
    with pytest.raises(TargetError, match=r"mine\.txt:3: 'not a name'"):
        profiles.load(["mine"], str(tmp_path))
    (tmp_path / "mine.txt").write_text("169.254.169.254\n")
    with pytest.raises(TargetError, match=r"mine\.txt:1: .*never reachable"):
        profiles.load(["mine"], str(tmp_path))
    (tmp_path / "mine.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(TerokError, match="cannot be read"):
        profiles.load(["mine"], str(tmp_path))


@pytest.mark.parametrize("name", ["nowhere", "../base", "/etc/passwd", ""])
def test_unknown_profiles(name: str, tmp_path: Path) -> None:
    with pytest.raises(TerokError):
        profiles.load([name], str(tmp_path))


@pytest.mark.parametrize("name", ["live.allowed", "deny.list"])
def test_a_damaged_list_is_named_with_its_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"example.com\n\xff\xfe\n")
    with pytest.raises(TargetError, match=f"{name}:2: .* is not plain ASCII"):
        read_list(str(path))


def test_a_list_of_denials_may_hold_what_can_never_be_allowed(tmp_path: Path) -> None:
    path = tmp_path / "deny.list"
    path.write_text("169.254.169.254\n")
    assert [str(target) for target in read_list(str(path))] == ["169.254.169.254"]
