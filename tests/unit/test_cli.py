"""The command line: every verb is there, --help is quick, errors are sentences, data and messages do not mix."""

from __future__ import annotations

import argparse
import json
import os
import pwd
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from terok_host.runtime import cli, parser, verbs
from terok_host.runtime.kit.env import Env, Output
from terok_host.runtime.kit.verb import comma_separated
from terok_host.supervisor.ground.errors import Exit

PROGRAM = Path(sys.executable).parent / "terok"


def terok(*words: str, home: Path, program: Path = PROGRAM, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_RUNTIME_DIR": str(home), **variables}
    return subprocess.run([str(program), *words], env=env, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("row", list(verbs.leaves()), ids=lambda row: row.path.replace(" ", "-"))
def test_every_row_leads_to_a_declared_verb(row: verbs.Verb) -> None:
    command = row.load()
    built = parser.build(command, f"terok {row.path}")
    assert "--json" in built._option_string_actions
    assert command.description.strip().endswith((".", ":")), "a description is sentences"
    assert not row.line.endswith("."), "a line of help is no sentence"
    assert all(action.help for action in built._actions), "every argument is explained"
    assert all("terok" in example for example in command.examples)
    built.format_help()


def test_every_declared_verb_has_its_row() -> None:
    targets = {row.target for row in verbs.leaves()}
    declared = set()
    for path in (Path(cli.__file__).parent).rglob("*.py"):
        module = ".".join(path.relative_to(Path(cli.__file__).parent).with_suffix("").parts)
        for function in re.findall(r"(?m)^@verb\((?:.|\n)*?^def (\w+)", path.read_text()):
            declared.add(f"{module}:{function}")
    assert declared == targets


def test_groups_have_verbs_and_verbs_have_groups() -> None:
    for row in verbs.BY_PATH.values():
        assert bool(row.target) != bool(verbs.below(row.path)), row.path
        assert not row.parent or not verbs.BY_PATH[row.parent].target, row.path
        assert bool(row.about) != bool(row.target), row.path
    assert len(verbs.BY_PATH) == sum(map(len, verbs.SECTIONS.values())), "no path stands twice"


def test_help_imports_no_verb_and_is_quick(tmp_path: Path) -> None:
    terok("--help", home=tmp_path)
    began = time.perf_counter()
    done = terok("--help", home=tmp_path)
    assert time.perf_counter() - began < 0.5, "80 ms is the budget, measured by `make bench`; this is a loaded machine"
    assert done.returncode == 0
    for row in verbs.below(""):
        assert f"  {row.name} " in done.stdout
        assert row.line[:30] in " ".join(done.stdout.split())
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys; from terok_host.runtime.cli import run; run(['--help']); run(['vault']);"
         "print([m for m in sys.modules if m.startswith('terok_host.runtime.') or m in ('argparse', 'yaml', 're')])"],
        capture_output=True, text=True, timeout=30,
    ).stdout  # fmt: skip
    assert set(eval(loaded.splitlines()[-1])) <= {f"terok_host.runtime.{name}" for name in ("cli", "verbs", "usage")}


def test_prepare_imports_nothing_that_it_does_not_need() -> None:
    """100 ms is its budget, measured by `make bench`; here is what would break it at once."""
    code = (
        "import json, sys; from terok_host.runtime import cli, parser\n"
        "from terok_host.runtime.launch import cli, prepare\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(json.loads(done.stdout))
    assert "_sqlite3" in loaded, "the store is among them"
    heavy = {"asyncio", "cryptography", "csv", "httpx", "paramiko", "pathlib", "psutil", "rich", "shutil", "socket"}
    assert not loaded & (heavy | {"ssl", "subprocess", "tempfile", "textwrap", "threading", "urllib", "yaml"})


def test_without_a_verb_there_is_a_short_help_grouped_by_what_one_wants(tmp_path: Path) -> None:
    done = terok(home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line for line in done.stdout.splitlines() if line in [f"{title}:" for title in verbs.SECTIONS]] == [
        "Run:",
        "See:",
        "Allow:",
        "Secrets:",
        "Host:",
    ]
    assert len(done.stdout.splitlines()) <= 54
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "passphrase" in terok("vault", home=tmp_path).stdout


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("fly",), Exit.USAGE, "no verb 'fly'"),
        (("statsu",), Exit.USAGE, "fix: `terok status`"),
        (("quarantine", "x"), Exit.USAGE, "fix: `terok shield quarantine`"),
        (("vault", "lst"), Exit.USAGE, "fix: `terok vault list`"),
        (("vault", "list", "--scop", "x"), Exit.USAGE, "fix: write --scope"),
        (("--versoin",), Exit.USAGE, "fix: write --version"),
        (("run", "--scop", "s", "x", "--", "image"), Exit.USAGE, "fix: write --scope"),
        (("run", "box", "debian:13"), Exit.USAGE, "fix: terok run box -- debian:13\n"),
        (("run", "box", "--rm", "-it", "i:1", "sh"), Exit.USAGE, "fix: terok run box -- --rm -it i:1 sh\n"),
        (("run", "box", "i", "a b; c"), Exit.USAGE, "fix: terok run box -- i 'a b; c'\n"),
        (("run", "box", "--profiles", "base", "dev-node", "i", "sh"), Exit.USAGE, "--profiles base dev-node -- i sh\n"),
        (("run", "box", "--profiles", "base", "i", "--scope", "s"), Exit.USAGE, "--profiles base --scope s -- i\n"),
        (("run", "box", "--profiles", "base", "--", "--rm"), Exit.USAGE, "--profiles base -- IMAGE [COMMAND...]\n"),
        (("run", "box", "i", "--scope", "s"), Exit.USAGE, "fix: terok run box --scope s -- i\n"),
        (("prepare", "box", "--net", "none", "i"), Exit.USAGE, "fix: terok prepare box -- --net none i\n"),
        (("vault", "audit", "-n", "x"), Exit.USAGE, "invalid int value"),
        (("config", "get"), Exit.USAGE, "KEY"),
        (("config", "get", "a", "b"), Exit.USAGE, "Unexpected argument 'b'"),
        (("status", "nope"), Exit.NOT_FOUND, "nope is not a terok container"),
        (("config", "get", "services.mod"), Exit.USAGE, "services.mode"),
        (("config", "set", "services.mode", "udp"), Exit.USAGE, "socket or tcp"),
        (("run", "x"), Exit.USAGE, "No image"),
        (("run", "x", "--", "--rm"), Exit.USAGE, "No image"),
        (("cleanup", "../x"), Exit.USAGE, "usable name"),
        (("prepare", "x"), Exit.FAILURE, "terok setup"),
    ],
)
def test_a_mistake_gets_a_sentence_on_stderr_and_its_exit_code(
    tmp_path: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    done = terok(*words, home=tmp_path)
    assert done.returncode == code
    assert says in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_a_broken_configuration_is_named_by_every_verb_that_reads_it(tmp_path: Path) -> None:
    path = tmp_path / ".config/terok/config.yml"
    path.parent.mkdir(parents=True)
    path.write_text("services:\n  mod: tcp\n")
    done = terok("status", home=tmp_path)
    assert done.returncode == Exit.USAGE
    assert f"{path}:2:3: unknown key services.mod." in done.stderr
    assert "fix: write services.mode" in done.stderr


def test_configuration_is_shown_set_and_got(tmp_path: Path) -> None:
    assert terok("config", "set", "network.mode", "none", home=tmp_path).returncode == 0
    assert terok("config", "get", "network.mode", home=tmp_path).stdout == "none\n"
    assert json.loads(terok("config", "get", "network.mode", "--json", home=tmp_path).stdout) == "none"
    shown = terok("config", "show", home=tmp_path).stdout
    assert "mode: none  # default: airlock" in shown
    defaults = terok("config", "show", "--defaults", home=tmp_path).stdout
    path = tmp_path / ".config/terok/config.yml"
    path.write_text(defaults)
    again = json.loads(terok("config", "show", "--json", home=tmp_path).stdout)
    assert again == json.loads(terok("config", "show", "--defaults", "--json", home=tmp_path).stdout)


def parsed(*words: str, prog: str = "terok") -> argparse.Namespace:
    row, shown, rest = cli.find(list(words), prog)
    assert row is not None
    return parser.parse(row.load(), rest, shown)


def test_words_after_two_dashes_are_podmans() -> None:
    args = parsed("run", "x", "--scope", "s", "--", "--rm", "--scope", "t", "--", "i")
    assert (args.name, args.scope, args.json, args.rest) == ("x", "s", False, ["--rm", "--scope", "t", "--", "i"])
    assert parsed("prepare", "x").rest is None
    assert parsed("prepare", "x", "--").rest == []


@pytest.mark.parametrize("before", [["claude"], ["claude", "--name", "x"], ["--name", "x", "claude"]])
def test_words_after_two_dashes_are_the_agents_whatever_stands_before(before: list[str]) -> None:
    command = verbs.BY_PATH["start"].load()
    args = parser.parse(command, [*before, "--", "--print", "a b", "--"], "terok start")
    assert (args.agent, args.words) == ("claude", ["--print", "a b", "--"])


@pytest.mark.parametrize("words", [["a", "b"], ["a,b"], ["a,", "b"], ["a", ",b"]])
def test_profiles_are_separated_by_spaces_or_commas(words: list[str]) -> None:
    assert comma_separated(parsed("run", "x", "--profiles", *words, "--", "i").profiles) == ("a", "b")


def test_a_message_cannot_command_a_terminal(tmp_path: Path) -> None:
    done = terok("vault", "list", "--a\x1b[2J\x9b31m", home=tmp_path)
    assert done.returncode == Exit.USAGE
    assert "no option --a\ufffd[2J\ufffd31m" in done.stderr
    assert not set("\x1b\x9b") & set(done.stderr)


@pytest.mark.parametrize(
    ("program", "words", "says"),
    [
        ("terok", ("help",), "terok VERB"),
        ("terok", ("help", "vault", "list"), "terok vault list"),
        ("terok-sandbox", ("--help",), "terok-sandbox"),
        ("terok-executor", ("vault", "--help"), "terok-executor vault"),
        ("terok-shield", ("status", "--help"), "terok-shield status [-h] [--json] [NAME]"),
        ("terok-shield", ("setup", "--help"), "terok-shield setup"),
        ("terok-shield", ("--help",), "terok-shield VERB"),
        ("terok-shield", ("--help",), "  run "),
        ("terok-shield", ("--help",), "  prepare "),
        ("terok-shield", (), "  setup "),
        ("terok-shield", ("--help",), "  quarantine "),
        ("terok-shield", ("--version",), "terok-shield "),
        ("terok-sandbox", ("--version",), "terok-sandbox "),
        ("terok", ("--version",), "terok "),
    ],
)
def test_other_names_of_the_program(tmp_path: Path, program: str, words: tuple[str, ...], says: str) -> None:
    done = terok(*words, home=tmp_path, program=PROGRAM.with_name(program))
    assert done.returncode == 0
    assert says in done.stdout


@pytest.mark.parametrize("always", [False, True])
@pytest.mark.parametrize("verb", ["run", "prepare"])
def test_the_executor_has_no_restricted_container_without_the_shield(tmp_path: Path, verb: str, always: bool) -> None:
    executor = PROGRAM.with_name("terok-executor")
    if always:
        assert terok("config", "set", "restricted.always", "true", home=tmp_path).returncode == Exit.OK
    words = [verb, "box", "--no-shield", *([] if always else ["--restricted"]), "--", "image"]
    refused = terok(*words, home=tmp_path, program=executor)
    assert refused.returncode == Exit.REFUSED and "no per-run opt-out" in refused.stderr
    # the same by another name goes on to what this home lacks
    assert "terok setup" in terok(*words, home=tmp_path).stderr


@pytest.mark.parametrize("program", ["terok-executor", "terok"])
def test_with_and_without_the_gate_at_once_is_refused(tmp_path: Path, program: str) -> None:
    for words in (("--gate", "--no-gate"), ("--no-gate", "--gate")):
        done = terok("run", "box", *words, "--", "image", home=tmp_path, program=PROGRAM.with_name(program))
        assert done.returncode == Exit.USAGE and "not allowed with" in done.stderr


def test_a_reader_that_leaves_causes_no_traceback(tmp_path: Path) -> None:
    command = f"{PROGRAM} config show --defaults | head -1"
    done = subprocess.run(
        ["sh", "-c", command], env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)}, capture_output=True, timeout=30
    )
    assert b"Traceback" not in done.stderr


class Terminal:
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_colours_only_on_a_terminal_and_not_under_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = Output(json_output=False, stream=Terminal())  # type: ignore[arg-type]  # only isatty is asked
    assert shown.paint("x", "bad") == "\x1b[31mx\x1b[0m"
    assert Output(json_output=True, stream=Terminal()).paint("x", "bad") == "x"  # type: ignore[arg-type]  # as above
    assert Output(json_output=False, stream=sys.__stdin__ or sys.stdin).paint("x", "bad") in ("x", "\x1b[31mx\x1b[0m")
    monkeypatch.setenv("NO_COLOR", "1")
    assert shown.paint("x", "bad") == "x"


def test_without_home_the_user_database_says_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "relative"):
        monkeypatch.setenv("HOME", value)
        assert Env.from_process().environ["HOME"] == pwd.getpwuid(os.getuid()).pw_dir


def test_a_directory_that_cannot_be_made_gets_a_sentence_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = terok("config", "set", "services.mode", "tcp", home=tmp_path / "file", XDG_RUNTIME_DIR=str(tmp_path))
    assert answer.returncode == Exit.FAILURE
    assert "Not a directory" in answer.stderr and "Traceback" not in answer.stderr
