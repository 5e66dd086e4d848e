"""`terok prepare` as a Compose service, a Quadlet unit and a dev container, given to the programs that read them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from terok_host.runtime.launch import formats
from terok_host.supervisor.ground.errors import Exit
from tests.lab.house import House

SCRIPT = 'ls /run/terok; echo "$A" "$0"; cat /etc/resolv.conf'
WORDS = ("--env", 'A=x %d $y "z"', "localhost/terok-test:1", "sh", "-c", SCRIPT, "zero")
QUADLET = Path("/usr/libexec/podman/quadlet")


@pytest.fixture
def project(house: House) -> Iterator[Path]:
    """A directory for a compose project, with a name that compose takes."""
    made = house.base / "project"
    made.mkdir()
    yield made
    for path in made.iterdir():
        path.unlink()
    made.rmdir()


def test_podman_compose_starts_it(house: House, name: str, project: Path) -> None:
    text = house.terok(
        "prepare", name, "--scope", "proj", "--allow-missing", "--format", "compose", "--", *WORDS
    ).stdout
    (project / "compose.yml").write_text(text)
    compose = [str(Path(sys.executable).parent / "podman-compose"), "--file", str(project / "compose.yml")]
    try:
        house.run([*compose, "up", "--detach"], cwd=project)
        house.podman("wait", name)
        out = house.podman("logs", name).stdout
    finally:
        house.run([*compose, "down"], cwd=project, check=False)
        house.podman("network", "prune", "--force", check=False)
    assert "vault.sock" in out
    assert 'x %d $y "z" zero' in out
    assert "nameserver 127.0.0.1" in out


def test_a_compose_file_says_what_the_flags_say(house: House, name: str) -> None:
    text = house.terok("prepare", name, "--format", "compose", "--restricted", "--", *WORDS).stdout
    document = yaml.safe_load(text)
    service = document["services"][name]
    assert document["x-podman"] == {"in_pod": False}
    assert service["image"] == "localhost/terok-test:1"
    assert service["annotations"]["terok.sandbox.sidecar"] == house.bundle(name).sidecar
    assert service["env_file"] == [house.bundle(name).env]
    assert service["read_only"] is True
    assert "NET_ADMIN" in service["cap_drop"]
    done = house.terok("prepare", name, "--format", "compose", "--", "--cpus=2", house.image, check=False)
    assert done.returncode == Exit.USAGE
    assert "--cpus" in done.stderr


def test_a_quadlet_unit_says_what_the_flags_say(house: House, name: str) -> None:
    text = house.terok("prepare", name, "--format", "quadlet", "--restricted", "--", *WORDS).stdout
    sections = text.split("\n\n")
    assert [section.splitlines()[0] for section in sections] == ["[Unit]", "[Container]", "[Install]"]
    lines = sections[1].splitlines()
    assert f"ContainerName={name}" in lines
    assert "Image=localhost/terok-test:1" in lines
    assert f"EnvironmentFile={house.bundle(name).env}" in lines
    assert f"Annotation=terok.sandbox.sidecar={house.bundle(name).sidecar}" in lines
    assert 'Environment="A=x %%d $y \\"z\\""' in lines
    assert "NoNewPrivileges=true" in lines
    assert "ReadOnly=true" in lines
    assert any(line.startswith("Exec=sh -c ") and "$$A" in line for line in lines)
    # systemd.syntax(7): every line is KEY=VALUE
    assert all("=" in line and line.partition("=")[0].isalpha() for line in lines[1:])


@pytest.mark.parametrize(
    ("word", "plain", "executed"),
    [
        ("plain", "plain", "plain"),
        ("two words", '"two words"', '"two words"'),
        ("", '""', '""'),
        ("100%", "100%%", "100%%"),
        ("$HOME", "$HOME", "$$HOME"),
        ('say "x"\n', '"say \\"x\\"\\n"', '"say \\"x\\"\\n"'),
        ("back\\slash", '"back\\\\slash"', '"back\\\\slash"'),
    ],
)
def test_words_are_quoted_as_systemd_reads_them(nothing_left: None, word: str, plain: str, executed: str) -> None:
    assert formats._unit(word, exec_line=False) == plain
    assert formats._unit(word, exec_line=True) == executed


def test_quadlets_generator_reads_the_unit_where_podman_has_it(house: House, name: str, tmp_path: Path) -> None:
    """Podman before 4.4 has no Quadlet; there the grammar above is all that can be tried."""
    unit = house.terok("prepare", name, "--format", "quadlet", "--", *WORDS).stdout
    (tmp_path / f"{name}.container").write_text(unit)
    version = tuple(int(part) for part in house.podman("--version").stdout.split()[-1].split(".")[:2])
    assert QUADLET.exists() is (version >= (4, 4))
    if not QUADLET.exists():
        return
    done = house.run([str(QUADLET), "-dryrun", "-user"], env={"QUADLET_UNIT_DIRS": str(tmp_path)})
    started = next(line for line in done.stdout.splitlines() if line.startswith("ExecStart="))
    assert f"--annotation terok.sandbox.sidecar={house.bundle(name).sidecar}" in started
    assert f"--env-file {house.bundle(name).env}" in started
    assert "--cap-drop net_admin" in started


def podmans_words(text: str, folder: Path) -> list[str]:
    """The words of `podman run` for a devcontainer.json, as @devcontainers/cli 0.89 makes and orders them."""
    document = json.loads(text.replace("${localWorkspaceFolder}", str(folder)))
    user = document["containerUser"]
    words = ["--mount", document["workspaceMount"]]
    words += [word for mount in document["mounts"] for word in ("--mount", mount)]
    words += [word for item in document["containerEnv"].items() for word in ("-e", "=".join(item))]
    words += ["-u", user, "--security-opt", "label=disable", *(["--userns=keep-id"] if user != "root" else [])]
    words += [*document["runArgs"], *(["--init"] if document["init"] else [])]
    return [*words, "--entrypoint", "/bin/sh", document["image"]]


INSIDE = """id -u; echo "$A"; ls /run/terok; cd /workspace; touch new
(echo >.devcontainer/devcontainer.json) 2>/dev/null || echo kept
mv .devcontainer elsewhere 2>/dev/null || echo stays"""


@pytest.mark.parametrize("user", ["root", "1000"])
def test_a_dev_container_starts_as_the_editor_starts_it(house: House, name: str, tmp_path: Path, user: str) -> None:
    fragment = tmp_path / ".devcontainer/devcontainer.json"
    fragment.parent.mkdir()
    words = [*(["--user", user] if user != "root" else []), "--init", "--env", "A=x d", house.image]
    text = house.terok("prepare", name, "--scope", "proj", "--allow-missing", "--format", "devcontainer", "--", *words)
    fragment.write_text(text.stdout)
    done = house.podman("run", "--rm", *podmans_words(text.stdout, tmp_path), "-c", INSIDE)
    uid, variable, *rest = done.stdout.splitlines()
    assert (uid, variable) == ("0" if user == "root" else user, "x d")
    assert "vault.sock" in rest
    # what the editor runs on the host stands in the file: the container may not change it
    assert rest[-2:] == ["kept", "stays"]
    assert fragment.read_text() == text.stdout
    assert (tmp_path / "new").stat().st_uid == fragment.stat().st_uid


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["IMAGE", "sleep", "1"], "command is the editor's"),
        (["--entrypoint", "sh", "IMAGE"], "command is the editor's"),
        (["--user", "vscode", "IMAGE"], "--user 1000"),
        (["--env", "A=${localEnv:HOME}", "IMAGE"], "cannot escape"),
    ],
)
def test_what_a_dev_container_cannot_say_is_refused(house: House, name: str, words: list[str], said: str) -> None:
    done = house.terok("prepare", name, "--format", "devcontainer", "--", *words, check=False)
    assert done.returncode == Exit.USAGE
    assert said in done.stderr


def test_volumes_of_a_dev_container_are_mounts_where_the_notation_can_say_them(nothing_left: None) -> None:
    assert formats._mount("/a:/b:ro,z") == "type=bind,source=/a,target=/b,readonly,relabel=shared"
    assert formats._mount("home:/home/agent") == "type=volume,source=home,target=/home/agent"
    assert [formats._mount(volume) for volume in ("/a,b:/c", "./a:/b", "/a", "/a:/b:U")] == [None] * 4
