"""The files in `examples/`, run as their first lines say; only images stand for those that the test has."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from terok_host.supervisor.ground.errors import Exit
from tests.lab import image, scope
from tests.lab.house import House
from tests.standins.dns import Resolver
from tests.standins.upstream import Upstream

from .conftest import remove_everything

EXAMPLES = Path(__file__).parents[2] / "examples"
IMAGE = "docker.io/library/debian:13"
"""What the examples name."""
CURL = """curl -s -m 20 -o /dev/null -w '%{http_code}\\n' -H "x-api-key: $ANTHROPIC_API_KEY" \\
  $TEROK_URL_ANTHROPIC/v1/models"""
ASK = f"""
export PATH=/usr/bin:/bin
while IFS= read -r line; do export "$line"; done </run/terok/env
{CURL}
ssh-add -l
curl -s -m 5 -o /dev/null http://192.88.99.66/ || echo "closed $?"
"""
AGENT = """\
#!/bin/sh
# stands in for Claude Code: asks its provider once, changes the project, and plants what must not run on the host
curl -sS -m 20 -o answer -w '%{http_code}' -H "x-api-key: $ANTHROPIC_API_KEY" https://upstream.test/v1/models
echo "$*" >words
git config core.fsmonitor "touch $PWD/ran"
ln -s /etc/passwd link
mkfifo pipe
exit 3
"""


@pytest.fixture(scope="module")
def world(vendor: Upstream, resolver: Resolver) -> Iterator[Upstream]:
    """The scope that the examples name, and its provider."""
    with Upstream(None, resolver.records[scope.DENIED][0], 80):
        yield vendor


@pytest.fixture
def place(house: House, nothing_left: None) -> Iterator[Path]:
    """A directory to copy an example to; every container is removed afterwards."""
    directory = house.base / "example"
    directory.mkdir()
    yield directory
    remove_everything(house)
    shutil.rmtree(directory)


def copied(house: House, place: Path, name: str) -> Path:
    """The example with the test's image in place of the one that it names."""
    target = place / Path(name).name
    text = (EXAMPLES / name).read_text()
    assert IMAGE in text
    target.write_text(text.replace(IMAGE, house.image))
    return target


def works(house: House, container: str, provider: Upstream) -> None:
    """The container asks the provider with its phantom token, sees the signer's key, and reaches no other address."""
    answer, key, *rest = house.podman("exec", container, "/bin/sh", "-c", ASK).stdout.splitlines()
    assert answer == "200"
    assert provider.seen[-1].header("x-api-key") == scope.SECRET
    assert "ED25519" in key
    assert rest == ["closed 7"]


def test_compose(house: House, place: Path, world: Upstream) -> None:
    file = copied(house, place, "compose/compose.yml")
    compose = [str(Path(sys.executable).parent / "podman-compose"), "--file", str(file)]
    house.run([*compose, "up", "--detach"], cwd=place)
    works(house, "compose-agent", world)
    house.run([*compose, "down"], cwd=place)


QUADLET = Path("/usr/libexec/podman/quadlet")
KEYS = {"ContainerName": "--name", "Network": "--network", "Annotation": "--annotation"}


def test_quadlet(house: House, place: Path, world: Upstream) -> None:
    """Quadlet's generator, where Podman has one, makes the command; elsewhere its keys are read here."""
    file = copied(house, place, "quadlet/agent.container")
    pairs = [line.split("=", 1) for line in file.read_text().splitlines() if "=" in line and line[0] != "#"]
    flags = [f"{KEYS[key]}={value}" for key, value in pairs if key in KEYS]
    if QUADLET.exists():
        done = house.run([str(QUADLET), "-dryrun", "-user"], env={"QUADLET_UNIT_DIRS": str(place)})
        line = next(line for line in done.stdout.splitlines() if line.startswith("ExecStart="))
        words = shlex.split(line.removeprefix("ExecStart="))
        missing = [flag for flag in flags if flag not in words and not set(flag.split("=", 1)) <= set(words)]
        assert missing == []
    command = shlex.split(dict(pairs)["Exec"])
    house.podman("run", "--detach", *flags, dict(pairs)["Image"], *command)
    works(house, "quadlet-agent", world)


def test_kube_play(house: House, place: Path, world: Upstream) -> None:
    file = copied(house, place, "kube/pod.yml")
    house.podman("kube", "play", str(file))
    works(house, "kube-agent-main", world)
    house.podman("kube", "down", str(file))


def test_podman_desktop_plays_the_same_file_through_podmans_service(house: House, place: Path, world: Upstream) -> None:
    file = copied(house, place, "kube/pod.yml")
    address = f"unix://{house.base}/podman.sock"
    service = subprocess.Popen(["podman", "system", "service", "--time", "0", address], env=house.env, cwd=house.home)
    try:
        deadline = time.monotonic() + 30
        while house.run(["podman", "--url", address, "info"], check=False).returncode != 0:
            assert time.monotonic() < deadline
        house.run(["podman", "--url", address, "play", "kube", str(file)])
        works(house, "kube-agent-main", world)
    finally:
        service.terminate()
        service.wait(10)


def test_a_ci_job(house: House, place: Path, world: Upstream) -> None:
    (place / "claude").write_text(AGENT)
    (place / "claude").chmod(0o755)
    (place / "Containerfile").write_text(f"FROM {house.image}\nCOPY claude /usr/bin/claude\n")
    house.podman("build", "--quiet", "--tag", "localhost/ci-agent:1", str(place))
    checkout = place / "checkout"
    house.run(["git", "init", "--quiet", str(checkout)])
    (checkout / "file").write_text("one\n")
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    house.run(["git", "add", "file"], cwd=checkout)
    house.run(["git", *author, "commit", "--quiet", "--message", "one"], cwd=checkout)
    # `terok` of the script adds the credential at the provider itself; here a stand-in is the provider
    programs = place / "programs"
    programs.mkdir()
    upstream = shlex.join(scope.add_words("ci", "https://upstream.test", house.base / "vendor-authority.pem")[4:])
    (programs / "terok").write_text(
        f'#!/bin/sh\n[ "$1 $2" = "vault add" ] && set -- "$@" {upstream}\nexec {house.program} "$@"\n'
    )
    (programs / "terok").chmod(0o755)
    env = {"PATH": f"{programs}:{house.env['PATH']}", "ANTHROPIC_API_KEY": scope.SECRET, "TMPDIR": str(place)}
    script = EXAMPLES / "ci/run-agent.sh"
    done = house.run(
        [str(script), "Fix the bug", "localhost/ci-agent:1"], cwd=checkout, env=env, check=False, timeout=110
    )
    assert done.returncode == 3, done.stderr  # the agent's own
    assert world.seen[-1].header("x-api-key") == scope.SECRET
    patch = (checkout / "agent.patch").read_text()
    assert "+--dangerously-skip-permissions" in patch
    assert "Fix the bug" in patch
    assert "root:" not in patch
    audit = json.loads((checkout / "agent-audit.json").read_text())
    assert any("/v1/models" in str(line) for line in audit)
    # nothing of the agent's ran on the host, and nothing is left of job and key
    assert sorted(path.name for path in checkout.iterdir()) == [".git", "agent-audit.json", "agent.patch", "file"]
    assert list(place.rglob("ran")) == []
    assert "ci" not in [row["scope"] for row in json.loads(house.terok("vault", "list", "--json").stdout)]
    house.podman("volume", "rm", "--force", "terok-ci-home")


def test_the_workflow_runs_the_script() -> None:
    document = yaml.safe_load((EXAMPLES / "ci/workflow.yml").read_text())
    steps = document["jobs"]["agent"]["steps"]
    command = next(step["run"] for step in steps if step.get("name") == "Run the agent")
    path = Path(shlex.split(command)[0])
    assert os.access(EXAMPLES.parent / path, os.X_OK)
    # text from outside reaches a shell as a variable only
    assert not any("${{" in step.get("run", "") for step in steps)
    kept = next(step["with"]["path"] for step in steps if step.get("uses", "").startswith("actions/upload"))
    assert all(name in (EXAMPLES / "ci/run-agent.sh").read_text() for name in kept.split())


def test_python(house: House, place: Path, world: Upstream) -> None:
    program = str(EXAMPLES / "python/launch.py")
    words = [house.image, "sh", "-c", f"{CURL}; exit 6"]
    done = house.run([sys.executable, program, "python-agent", scope.SCOPE, *words], check=False)
    assert done.returncode == 6, done.stderr
    assert '"broker": true' in done.stdout
    assert '"path":"/v1/models"' in done.stdout.replace(" ", "")
    assert not os.path.exists(house.bundle("python-agent").root)
    missing = house.run([sys.executable, program, "python-agent", "nobody", *words], check=False)
    assert missing.returncode == Exit.NOT_FOUND


def test_ssh_into_a_container_without_a_network(house: House, place: Path, world: Upstream) -> None:
    with_sshd = "localhost/with-sshd:1"
    house.podman("import", "--quiet", "-", with_sshd, stdin=image.build((*image.PROGRAMS, "sshd")))
    home = ("--volume", "ssh-home:/home/work:U", "--env", "HOME=/home/work", "--user", "1000")
    container = "project-shell"
    house.terok("run", container, "--scope", scope.SCOPE, "--", "--detach", *home, with_sshd, "sleep", "1000")
    comments = [line[4:] for line in (EXAMPLES / "ssh/config").read_text().splitlines() if line.startswith("#   ")]
    (house.home / ".ssh").mkdir(mode=0o700)
    for command in comments:
        house.run(["sh", "-c", command])
    text = (EXAMPLES / "ssh/config").read_text().replace("User agent", "User work")
    # ssh(1) takes `~` from the user database, which the house's home is not in
    (place / "config").write_text(text.replace("~/.ssh/terok-editor", str(house.home / ".ssh/terok-editor")))
    done = house.run(["ssh", "-F", str(place / "config"), container, f"id -u; {CURL}"])
    assert done.stdout.split() == ["1000", "200"]
    shutil.rmtree(house.home / ".ssh")
    house.podman("rm", "--force", "--time", "0", container)
    house.podman("volume", "rm", "ssh-home")
    house.podman("rmi", with_sshd)
