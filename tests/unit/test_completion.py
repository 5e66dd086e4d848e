"""Completion and man pages: what shells offer, which names they are given, and that the pages say what --help says."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest

from terok_host.runtime import completion, pages, values, verbs
from terok_host.runtime.kit.env import Env
from terok_host.sidecars.gate.refs import Change
from terok_host.sidecars.gate.state import State
from tests.standins.operator import Operator

PROGRAM = Path(sys.executable).parent / "terok"


@pytest.fixture
def operator(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Operator:
    made = Operator(tmp_path, capsys, monkeypatch)
    made.environ["PATH"] = f"{PROGRAM.parent}:{made.environ['PATH']}"
    made.add("work", "mistral")
    made.add("other", "github")
    os.makedirs(made.layout.bundle("box").root)
    return made


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the wheel installs."""
    root = tmp_path_factory.mktemp("pages")
    pages.install_tree(str(root), "1.2.3")
    return root


def in_bash(scripts: Path, environ: dict[str, str], *words: str) -> set[str]:
    """What bash offers for the last of the words."""
    line = " ".join(f"'{word}'" for word in words)
    name = "_shtab_" + words[0].replace("-", "_")
    program = (
        f"source {scripts}/share/bash-completion/completions/{words[0]}\n"
        f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; {name} {words[0]} '{words[-1]}' '{words[-2]}'\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", program], env=environ, capture_output=True, text=True, check=True, timeout=20
    )  # fmt: skip
    return set(done.stdout.split())


def in_fish(scripts: Path, environ: dict[str, str], *words: str) -> set[str]:
    """What fish offers for the last of the words."""
    line = " ".join(words)
    program = f"source {scripts}/share/fish/vendor_completions.d/{words[0]}.fish; complete -C '{line}'"
    done = subprocess.run(
        ["fish", "--no-config", "-c", program], env=environ, capture_output=True, text=True, check=True, timeout=20
    )
    return {line.partition("\t")[0] for line in done.stdout.splitlines()}


CASES = [
    (("terok", "statu"), {"status"}),
    (("terok", "config", "sh"), {"show"}),
    (("terok", "config", "show", "--def"), {"--defaults"}),
    (("terok", "run", "--no-"), {"--no-shield", "--no-vault", "--no-ssh", "--no-gate"}),
    (("terok", "run", "x", "--scope", "wo"), {"work"}),
    (("terok", "run", "x", "--profiles", "dev-p"), {"dev-python"}),
    (("terok", "run", "x", "--network", "p"), {"pasta"}),
    (("terok", "shield", "allow", "b"), {"box"}),
    (("terok-shield", "allow", "b"), {"box"}),
    (("terok-shield", "prep"), {"prepare"}),
    (("terok", "vault", "add", "work", "anth"), {"anthropic"}),
    (("terok", "auth", "clau"), {"claude"}),
    (("terok", "config", "get", "services.m"), {"services.mode"}),
]


@pytest.mark.parametrize(("words", "offers"), CASES, ids=lambda value: "-".join(value) if type(value) is tuple else "")
def test_bash_offers_verbs_options_and_the_right_names(
    scripts: Path, operator: Operator, words: tuple[str, ...], offers: set[str]
) -> None:
    assert in_bash(scripts, operator.environ, *words) == offers


@pytest.mark.parametrize(("words", "offers"), CASES, ids=lambda value: "-".join(value) if type(value) is tuple else "")
def test_fish_offers_verbs_options_and_the_right_names(
    scripts: Path, operator: Operator, words: tuple[str, ...], offers: set[str]
) -> None:
    assert in_fish(scripts, operator.environ, *words) >= offers


class Zsh:
    """An interactive zsh at a terminal, whose control-T completes the line and hands it over through a FIFO."""

    def __init__(self, folder: Path, fpath: Path, environ: dict[str, str]) -> None:
        self._fifo = folder / "fifo"
        os.mkfifo(self._fifo)
        self._master, slave = pty.openpty()
        rc = (
            f"fpath=({fpath} $fpath); autoload -Uz compinit; compinit -u -D\n"
            f"show() {{ zle complete-word; print -r -- $BUFFER >{self._fifo}; BUFFER=; zle redisplay }}\n"
            f"zle -N show; bindkey '^T' show; PS1=; unsetopt beep; print -r -- ready >{self._fifo}\n"
        )
        (folder / ".zshrc").write_text(rc)
        self._process = subprocess.Popen(
            ["zsh", "-d", "-i"],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**environ, "ZDOTDIR": str(folder), "TERM": "xterm"},
            start_new_session=True,
        )
        os.close(slave)
        assert self._read() == "ready"

    def _read(self) -> str:
        """What it writes into the FIFO next; its terminal is emptied meanwhile, so that it never waits for it."""
        fd = os.open(self._fifo, os.O_RDONLY | os.O_NONBLOCK)
        try:
            text = b""
            while not text.endswith(b"\n"):
                ready, _, _ = select.select([fd, self._master], [], [], 20)
                assert ready, "zsh said nothing in 20 seconds"
                if self._master in ready:
                    os.read(self._master, 4096)
                if fd in ready:
                    part = os.read(fd, 4096)
                    text += part
                    if not part:  # the writer of the line before has closed it
                        os.close(fd)
                        fd = os.open(self._fifo, os.O_RDONLY | os.O_NONBLOCK)
            return text.decode().strip()
        finally:
            os.close(fd)

    def complete(self, line: str) -> str:
        """The line after its last word was completed."""
        os.write(self._master, line.encode() + b"\x14")
        return self._read()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)


def test_zsh_offers_verbs_options_and_the_right_names(scripts: Path, operator: Operator, tmp_path: Path) -> None:
    folder = tmp_path / "zsh"
    folder.mkdir()
    zsh = Zsh(folder, scripts / "share/zsh/site-functions", operator.environ)
    try:
        for words, offers in CASES:
            if len(offers) == 1:
                assert zsh.complete(" ".join(words)) == " ".join([*words[:-1], *offers])
    finally:
        zsh.close()


@pytest.mark.parametrize("prog", pages.PROGRAMS)
def test_zsh_reads_the_script(scripts: Path, prog: str) -> None:
    script = scripts / "share/zsh/site-functions" / f"_{prog}"
    subprocess.run(["zsh", "-n", str(script)], check=True, timeout=20)
    assert script.read_text().startswith(f"#compdef {prog}\n")


def test_every_kind_of_names_exists_and_answers(operator: Operator) -> None:
    env = Env.from_process()
    named = {
        getattr(action, "values", "") for action in pages._actions(pages.tree("terok"))
    } - {"", "files", "directories"}  # fmt: skip
    assert named == set(values.KINDS)
    for kind in values.KINDS:
        assert isinstance(values.offered(kind, env, []), list)
    assert values.offered("scopes", env, []) == ["other", "work"]
    assert values.offered("containers", env, []) == ["box"]


def test_names_that_a_shell_would_run_are_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["$(touch x)", "`id`", "a b", "-rf", "../x", "x;y", "fine/branch-1.0", "work"]
    monkeypatch.setitem(values.KINDS, "tips", lambda env, words: names)
    assert values.offered("tips", Env.from_process(), []) == ["fine/branch-1.0", "work"]


def test_proposals_are_those_of_the_gate_on_the_line(operator: Operator) -> None:
    home = operator.layout.gate_home("work")
    os.makedirs(home.root)
    with State(home) as state:
        state.propose("container", "box", "refs/heads/x", "update", "1" * 40, "0" * 40, Change(home))
        state.save()
    env = Env.from_process()
    assert values.offered("proposals", env, ["gate", "approve", "work"]) == ["1"]
    assert values.offered("proposals", env, ["gate", "approve", "other"]) == []
    assert values.offered("gates", env, []) == ["work"]


def test_nothing_is_offered_when_the_configuration_is_wrong(operator: Operator) -> None:
    Path(operator.layout.config, "config.yml").write_text("services: {mod: x}")
    assert operator("completion", "values", "scopes").out == ""


def test_each_verb_has_a_page_with_every_section(scripts: Path) -> None:
    folder = scripts / "share/man/man1"
    names = {path.name for path in folder.iterdir()}
    titles = {"terok-" + row.path.replace(" ", "-") + ".1" for row in verbs.BY_PATH.values()}
    assert names == titles | {f"{prog}.1" for prog in pages.PROGRAMS}
    for path in folder.iterdir():
        text = path.read_text()
        if text.startswith(".so "):
            continue
        sections = re.findall(r"(?m)^\.SH (.+)$", text)
        assert [name for name in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS") if name in sections], path
        assert sections[-3:] == ["EXIT STATUS", "FILES", "SEE ALSO"], path
        assert "1.2.3" in text.splitlines()[0]
        assert not re.search(r"(?m)^'|^\.(?![A-Z]{2}|fi|nf|B)", text), path
        for name in re.findall(r"\\fB(\S+?)\\fR\(1\)", text.replace("\\-", "-")):
            assert f"{name}.1" in names or name == "podman-run", (path, name)
    run = (folder / "terok-run.1").read_text().replace("\\-", "-")
    assert "--restricted" in run
    assert ".SH EXAMPLES" in run


def test_completion_prints_what_is_installed_or_generates_it(operator: Operator, tmp_path: Path) -> None:
    assert operator("completion", "bash").out.startswith("# AUTOMATICALLY GENERATED")
    assert operator("completion", "man", "--directory", str(tmp_path / "man")).code == 0
    assert (tmp_path / "man/terok-run.1").is_file()
    assert operator("completion", "values", "nonsense").code == 2


def test_an_installed_wheel_brings_them_and_a_source_tree_does_not() -> None:
    installed = "site-packages" in Path(pages.__file__).resolve().parts
    wanted = [*completion.SCRIPTS.values(), "share/man/man1/terok.1", "share/man/man1/terok-vault-passphrase-set.1"]
    assert [completion.installed(path) is not None for path in wanted] == [installed] * len(wanted)
