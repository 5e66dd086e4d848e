"""The command line: every verb is there, --help is quick, errors are sentences, data and messages do not mix."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from terok_host.runtime import cli, completion, verbs
from terok_host.runtime.kit.env import Output
from terok_host.supervisor.ground.errors import Exit

PROGRAM = Path(sys.executable).parent / "terok"


def terok(*words: str, home: Path, program: Path = PROGRAM, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_RUNTIME_DIR": str(home), **variables}
    return subprocess.run([str(program), *words], env=env, capture_output=True, text=True, timeout=30)


def leaves() -> list[completion.Command]:
    """Every command that does something."""
    return [each for each in completion.walk(cli.build_parser(everything=True)) if each.words and not each.verbs]


def test_every_verb_has_its_module_and_the_module_every_verb() -> None:
    for name, module, line in verbs.VERBS:
        assert callable(import_module(f"terok_host.runtime.{module}").register), name
        assert line and not line.endswith("."), name
    parser = cli.build_parser(everything=True)
    group = next(each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    assert list(group.choices) and set(group.choices) == {name for name, _, _ in verbs.VERBS}


def test_every_command_prints_json_has_help_and_runs_something() -> None:
    for command in leaves():
        assert "--json" in command.options, command.words
        assert command.parser.get_default("run") is not None, command.words
        assert command.help, command.words


def test_help_imports_no_verb_and_is_quick(tmp_path: Path) -> None:
    terok("--help", home=tmp_path)
    began = time.perf_counter()
    done = terok("--help", home=tmp_path)
    assert time.perf_counter() - began < 0.5, "80 ms is the budget, measured by `make bench`; this is a loaded machine"
    assert done.returncode == 0
    for name, _, line in verbs.VERBS:
        assert name in done.stdout
        assert line[:30] in " ".join(done.stdout.split())
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys; from terok_host.runtime import cli; cli.build_parser();"
         "print([m for m in sys.modules if m.startswith('terok_host.runtime.') or m in ('yaml', 'psutil', 'json')])"],
        capture_output=True, text=True, timeout=30,
    ).stdout  # fmt: skip
    assert set(eval(loaded)) <= {"terok_host.runtime.cli", "terok_host.runtime.verbs"}


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ((), 2, "VERB"),
        (("fly",), 2, "invalid choice"),
        (("status", "nope"), Exit.NOT_FOUND, "No container nope"),
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
    assert "mode: none  # default: auto" in shown
    defaults = terok("config", "show", "--defaults", home=tmp_path).stdout
    path = tmp_path / ".config/terok/config.yml"
    path.write_text(defaults)
    again = json.loads(terok("config", "show", "--json", home=tmp_path).stdout)
    assert again == json.loads(terok("config", "show", "--defaults", "--json", home=tmp_path).stdout)


def test_words_after_two_dashes_are_podmans() -> None:
    args = cli.build_parser("run").parse_args(["run", "x", "--scope", "s"])
    assert (args.name, args.scope, args.json) == ("x", "s", False)


@pytest.mark.parametrize(
    ("program", "words", "says"),
    [
        ("terok-sandbox", ("--help",), "terok-sandbox"),
        ("terok-executor", ("vault", "--help"), "terok-executor vault"),
        ("terok-shield", ("status", "--help"), "terok status"),
        ("terok-shield", ("--help",), "terok shield"),
        ("terok", ("--version",), "terok "),
    ],
)
def test_other_names_of_the_program(tmp_path: Path, program: str, words: tuple[str, ...], says: str) -> None:
    done = terok(*words, home=tmp_path, program=PROGRAM.with_name(program))
    assert done.returncode == 0
    assert says in done.stdout


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


def complete(script: str, words: list[str]) -> list[str]:
    """What bash would offer for the last of the words."""
    line = " ".join(f"'{word}'" for word in words)
    program = (
        f"{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _terok terok '{words[-1]}' '{words[-2]}'\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    return subprocess.run(
        ["bash", "-c", program], capture_output=True, text=True, check=True, timeout=10
    ).stdout.split()


def test_bash_completes_verbs_options_and_subcommands() -> None:
    script = completion.bash(list(completion.walk(cli.build_parser(everything=True))))
    assert complete(script, ["terok", "sta"]) == ["status"]
    assert set(complete(script, ["terok", "run", "--no-"])) == {"--no-shield", "--no-vault", "--no-ssh", "--no-gate"}
    assert complete(script, ["terok", "config", "sh"]) == ["show"]
    assert complete(script, ["terok", "config", "show", "--def"]) == ["--defaults"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_name_every_verb(shell: str) -> None:
    script = completion.SCRIPTS[shell](list(completion.walk(cli.build_parser(everything=True))))
    for name, _, _ in verbs.VERBS:
        assert name in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script.encode(), check=True, timeout=10)


def test_man_pages_say_what_help_says(tmp_path: Path) -> None:
    done = terok("completion", "man", "--directory", str(tmp_path / "man"), home=tmp_path)
    assert done.returncode == 0
    pages = {path.name for path in (tmp_path / "man").iterdir()}
    assert pages == {"terok.1", *(f"terok-{name}.1" for name, _, _ in verbs.VERBS)}
    run = (tmp_path / "man/terok-run.1").read_text()
    assert run.startswith(".TH TEROK-RUN 1")
    assert "\\-\\-restricted" in run
    for path in (tmp_path / "man").iterdir():
        assert not [line for line in path.read_text().splitlines() if line.startswith("'")], path
