"""The forms of `terok prepare` with HTTPS at the providers' own hosts: what each has, and a container from it."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from tests.lab import scope
from tests.lab.house import House
from tests.standins.upstream import Upstream

from .test_launch_forms import QUADLET, podmans_words, project
from .test_tls import CODE, URL

__all__ = ["project"]
ASK = (
    f'curl -sS -m 20 {CODE} -H "x-api-key: $ANTHROPIC_API_KEY" {URL}; echo; env | grep -v ^TEROK_ | grep -c 9419; true'
)
SYSTEMDS = ("--cgroups=split", "--sdnotify=conmon", "--sdnotify=container", "-d", "--replace")
"""Words in a Quadlet service that only make sense below systemd."""
KEYS = {
    "ContainerName": "name", "Annotation": "annotation", "Network": "network", "EnvironmentFile": "env-file",
    "DropCapability": "cap-drop", "Volume": "volume",
}  # fmt: skip


def prepare(house: House, name: str, form: str, network: str, *words: str) -> str:
    command = ("prepare", name, "--scope", scope.SCOPE, "--network", network, "--format", form, "--", *words)
    return house.terok(*command).stdout


def trusting(house: House, name: str) -> None:
    """What every form leads to: the wiring with the authority, and variables that name it and no address."""
    variables = dict(line.split("=", 1) for line in Path(house.bundle(name).env).read_text().splitlines())
    assert variables["SSL_CERT_FILE"] == variables["CURL_CA_BUNDLE"] == "/run/terok/ca.pem"
    assert variables["NODE_EXTRA_CA_CERTS"] == "/run/terok/authority.pem"
    assert variables["ANTHROPIC_API_KEY"] and "ANTHROPIC_BASE_URL" not in variables
    assert json.loads(Path(house.bundle(name).sidecar).read_text())["trust"] is True


@pytest.mark.parametrize("network", ["airlock", "auto"])
def test_compose(house: House, name: str, vendor: Upstream, project: Path, network: str) -> None:  # noqa: F811 - a fixture
    text = prepare(house, name, "compose", network, house.image, "sh", "-c", ASK)
    service = yaml.safe_load(text)["services"][name]
    assert service["env_file"] == [house.bundle(name).env] and any("/run/terok" in each for each in service["volumes"])
    assert service["annotations"]["terok.sandbox.sidecar"] == house.bundle(name).sidecar
    trusting(house, name)
    (project / "compose.yml").write_text(text)
    compose = [str(Path(sys.executable).parent / "podman-compose"), "--file", str(project / "compose.yml")]
    try:
        house.run([*compose, "up", "--detach"], cwd=project)
        house.podman("wait", name)
        assert house.podman("logs", name).stdout.split() == ["200", "0"]
    finally:
        house.run([*compose, "down"], cwd=project, check=False)
        house.podman("network", "prune", "--force", check=False)
    assert vendor.seen[-1].header("x-api-key") == scope.SECRET


def started_by_quadlet(house: House, unit: str, name: str, folder: Path) -> list[str]:
    """The words of `podman run` that Quadlet makes of a unit; those it stands for before Podman 4.4, which has none."""
    if QUADLET.exists():
        (folder / f"{name}.container").write_text(unit)
        done = house.run([str(QUADLET), "-dryrun", "-user"], env={"QUADLET_UNIT_DIRS": str(folder)})
        line = next(line for line in done.stdout.splitlines() if line.startswith("ExecStart="))
        words = shlex.split(line.partition("=")[2].replace("$$", "$").replace("%%", "%"))
        return [word for word in words[words.index("run") + 1 :] if word not in SYSTEMDS and "cidfile" not in word]
    pairs = [line.split("=", 1) for line in unit.split("\n\n")[1].splitlines()[1:]]
    values = dict(pairs)
    flags = [f"--{KEYS[key]}={value}" for key, value in pairs if key in KEYS]
    command = shlex.split(values["Exec"].replace("$$", "$").replace("%%", "%"))
    return [*flags, *shlex.split(values["PodmanArgs"]), values["Image"], *command]


@pytest.mark.parametrize("network", ["airlock", "auto"])
def test_quadlet(house: House, name: str, vendor: Upstream, tmp_path: Path, network: str) -> None:
    unit = prepare(house, name, "quadlet", network, house.image, "sh", "-c", ASK)
    assert f"EnvironmentFile={house.bundle(name).env}\n" in unit and ":/run/terok:ro\n" in unit
    trusting(house, name)
    done = house.podman("run", *started_by_quadlet(house, unit, name, tmp_path))
    assert done.stdout.split() == ["200", "0"], done.stderr
    assert vendor.seen[-1].header("x-api-key") == scope.SECRET


def test_a_dev_container(house: House, name: str, vendor: Upstream, tmp_path: Path) -> None:
    fragment = tmp_path / ".devcontainer/devcontainer.json"
    fragment.parent.mkdir()
    fragment.write_text(prepare(house, name, "devcontainer", "airlock", house.image))
    trusting(house, name)
    done = house.podman("run", "--rm", *podmans_words(fragment.read_text(), tmp_path), "-c", ASK)
    assert done.stdout.split() == ["200", "0"], done.stderr
