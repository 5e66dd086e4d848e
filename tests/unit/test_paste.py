"""Commands that people paste: what a container chose stays one word, and no option."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

from terok_host.sidecars.shield import hints
from terok_host.sidecars.shield.reader.main import Reader
from terok_host.sidecars.ssh import policy
from terok_host.supervisor.ground import paste

HOSTILE = ["$(touch x)", "`id`", "a;b", "a b", "a'b", 'a"b', "--force", "~root", "*", "!!", "a|b", "#x", "\\", "a&b"]


@pytest.mark.parametrize("word", [*HOSTILE, "plain", "a:b/c"])
def test_a_shell_reads_back_the_same_words(word: str) -> None:
    assert shlex.split(paste.command("terok", "x", word, user=word)) == ["terok", "x", word, f"--user={word}"]


@pytest.mark.parametrize("word", ["", "a\nb", "a\x1b[2J", "caf\u00e9", "\u202eabc", "a\0", "x" * 300])
def test_what_a_terminal_would_not_show_gives_no_command(word: str) -> None:
    assert paste.command("terok", word) == ""


@pytest.mark.parametrize("name", ["*.com", "a b.example.com", "com", "-x.example.com", "203.0.113.7", "", "a..b"])
def test_a_name_that_is_no_plain_host_name_is_not_offered(name: str) -> None:
    assert hints.allow("box", hints.name_target(name)) == {}


def test_a_name_is_offered_alone() -> None:
    assert hints.allow("box", hints.name_target("Api.Example.com.")) == {
        "allow": "terok shield allow box api.example.com"
    }
    assert hints.name_target("$(touch x).evil.example") is None


@pytest.mark.parametrize(
    ("name", "address", "port", "protocol", "target"),
    [
        (None, "203.0.113.7", 443, "tcp", "203.0.113.7"),
        (None, "203.0.113.7", 22, "tcp", "203.0.113.7:22"),
        (None, "2001:db8::7", 53, "udp", "[2001:db8::7]:53/udp"),
        ("a.example", "203.0.113.7", 22, "tcp", "a.example:22"),
        ("a b", "203.0.113.7", 22, "tcp", "203.0.113.7:22"),
        ("a.example", "10.0.0.7", 22, "tcp", "10.0.0.7:22"),
        (None, "169.254.169.254", 80, "tcp", None),
        (None, "100.100.100.200", 80, "tcp", None),
        (None, "fd00:ec2::254", 80, "tcp", None),
        ("meta.example", "169.254.169.254", 80, "tcp", None),
        (None, "127.0.0.1", 80, "tcp", None),
        (None, "224.0.0.1", 5353, "udp", None),
        (None, "203.0.113.7", 0, "icmp", None),
        (None, "", 0, "", None),
    ],
)
def test_what_a_packet_offers(name: str | None, address: str, port: int, protocol: str, target: str | None) -> None:
    found = hints.packet_target(name, address, port, protocol)
    assert (str(found) if found else None) == target


def lines_of(*questions: str) -> list[str]:
    written: list[str] = []
    reader = Reader(
        "box", lambda event, **fields: written.append(f"{event} {fields.get('name')} {fields.get('allow', '-')}")
    )
    for name in questions:
        text = f"dnsmasq[1]: query[A] {name} from 127.0.0.1\ndnsmasq[1]: config {name} is NXDOMAIN\n"
        reader.on_log(text.encode(), 0.0)
    return written


def test_hostile_questions_are_in_the_audit_without_a_command() -> None:
    assert lines_of("$(touch x).evil.example", "*.com") == ["dns $(touch x).evil.example -", "dns *.com -"]


def test_a_container_that_asks_for_itself_is_not_refused_anything() -> None:
    assert lines_of("1.0.0.127.in-addr.arpa", "localhost", "box", "0123456789ab", "policy-17.terok.invalid") == []
    assert len(lines_of("policy-x.terok.invalid", "intranet")) == 2


@pytest.mark.parametrize("word", HOSTILE)
def test_the_signers_hints_quote_users_and_namespaces(word: str) -> None:
    pin = policy.Pin("git.example", ("git",))
    allow = policy._decide_user((pin,), word).allow
    assert shlex.split(allow) == ["terok", "ssh", "trust", "git.example", f"--user={word}"]


TEMPLATE = re.compile(
    r"(?:(?<!this )terok(?:-[a-z]+)? [a-z]+|podman (?:start|stop|restart|rm)|sudo [a-z-]+)(?: [A-Za-z0-9=.|/-]+)*"
    r"[ =](?:(?<!\{)\{[a-z_]*\}(?!\})|%s|%\([a-z_]+\)s)"
)
"""A command with a place for a word that `format` or `%` fills in."""
ROOT = Path(__file__).parents[2]


def templates(code: str) -> list[str]:
    """Texts in which `format` or `%` fills in a word of a command: nothing there shows that it is quoted."""
    tree = ast.parse(code)
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    texts = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in parts)
    return [text.value for text in texts if isinstance(text.value, str) and TEMPLATE.search(text.value)]


def test_no_command_that_people_paste_is_a_template() -> None:
    """f-strings are held to quoting by the house's own test; a template's words come from elsewhere."""
    files = [
        path for floor in ("supervisor", "hookbin", "sidecars", "runtime") for path in (ROOT / floor).rglob("*.py")
    ]
    assert {str(path): lines for path in files if (lines := templates(path.read_text()))} == {}


@pytest.mark.parametrize(
    ("code", "seen"),
    [
        ('"run terok heal {}".format(name)', True),
        ('"run terok vault add {scope}".format(scope=scope)', True),
        ('"podman stop %s; and so on" % name', True),
        ('"once: sudo bash {installer}; or"', True),
        ('"the rules of {scope}"', False),
        ('f"terok heal {paste.quoted(name)}"', False),
    ],
)
def test_templates_of_commands_are_seen(code: str, seen: bool) -> None:
    assert bool(templates(code)) is seen
