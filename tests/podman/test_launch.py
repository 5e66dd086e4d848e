"""Launching for real: run, prepare, cleanup and the Python API, with tokens, agents and the firewall in place."""

from __future__ import annotations

import io
import json
import os
import shlex
import socket
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from terok_host.runtime.kit.config import load
from terok_host.runtime.launch import LOOPBACK_VAULT_PORT, WiringPlan, bridges_resource_dir
from terok_host.runtime.launch.resources import is_free
from terok_host.sidecars.store import keys
from terok_host.sidecars.store.store import Store
from terok_host.sidecars.store.tokens import digest
from terok_host.supervisor import schema
from terok_host.supervisor.ground.errors import Exit
from tests.lab.house import House
from tests.lab.waiting import until
from tests.standins.stores import unlocked

SECRET = "sk-ant-api03-the-real-one-never-leaves"
SCOPE = "proj"
PATIENT = ("sh", "-c", "trap exit TERM; sleep 1000 & wait")


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """A house whose vault has two credentials in one scope, and a shield profile."""
    made = House.build()
    keys.create_vault(made.layout)
    with unlocked(made.layout) as store:
        store.put("credential", SCOPE, "anthropic", SECRET.encode(), {"auth": "api-key"})
        store.put("credential", SCOPE, "github", b"gho_the-real-one", {"auth": "api-key"})
        store.put("credential", "other", "anthropic", b"another", {"auth": "api-key"})
    profiles = Path(made.layout.profiles)
    profiles.mkdir(parents=True)
    (profiles / f"{SCOPE}.txt").write_text("allowed.test\n")
    made.podman("run", "--rm", made.image, "true")
    yield made
    made.destroy()


def run(house: House, name: str, script: str, *options: str, flags: tuple[str, ...] = ("--rm",)) -> str:
    """What a shell script prints in a container of terok's; with `--rm` its state bundle goes when it ends."""
    done = house.terok("run", name, *options, "--", *flags, house.image, "sh", "-c", script)
    return done.stdout


def variables(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def prepared(house: House, name: str, *options: str) -> list[str]:
    words: list[str] = json.loads(house.terok("prepare", name, "--json", *options).stdout)
    return words


def tokens(house: House, name: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(Path(house.bundle(name).tokens).read_text())["tokens"]
    return found


def known_digests(house: House, name: str) -> set[bytes]:
    with Store.open(house.layout.vault_db) as store:
        return {info.digest for info in store.tokens(name)}


def test_a_container_gets_tokens_and_no_secret(house: House, name: str) -> None:
    found = variables(run(house, name, "env", "--scope", SCOPE, flags=()))
    assert found["TEROK_VAULT_SOCKET"] == "/run/terok/vault.sock"
    assert found["TEROK_VAULT_LOOPBACK_PORT"] == str(LOOPBACK_VAULT_PORT)
    assert found["TEROK_GATE_SOCKET"] == "/run/terok/gate.sock"
    assert found["SSH_AUTH_SOCK"] == "/run/terok/ssh-agent.sock"
    assert found["TEROK_URL_ANTHROPIC"] == "http://127.0.0.1:9419"
    given = tokens(house, name)
    assert found["ANTHROPIC_API_KEY"] == given["anthropic"]
    assert found["ANTHROPIC_API_KEY"].startswith("sk-ant-api03-")
    assert found["GH_TOKEN"] == given["github"]
    assert found["TEROK_GATE_TOKEN"] == given["gate"]
    assert known_digests(house, name) == {digest(token) for token in given.values()}
    bundle = Path(house.bundle(name).root)
    for path in bundle.rglob("*"):
        if path.is_file():
            assert SECRET not in path.read_text(errors="replace"), path


def test_everything_in_the_bundle_is_the_operators_alone(house: House, name: str) -> None:
    prepared(house, name, "--scope", SCOPE)
    root = Path(house.bundle(name).root)
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    for file in ("meta.json", "sidecar.json", "env", "tokens.json"):
        assert stat.S_IMODE((root / file).stat().st_mode) == 0o600, file
    assert stat.S_IMODE(os.stat(house.layout.runtime_dir(name)).st_mode) == 0o700
    plan = WiringPlan.from_dict(json.loads((root / "meta.json").read_text()))
    assert plan == WiringPlan(scope=SCOPE, shield=True, gate=True, broker=True, ssh=True)
    wiring = schema.load(str(root / "sidecar.json"))
    assert [each.name for each in wiring.sidecars] == ["vault", "ssh", "gate", "audit", "airlock"]


def test_no_token_stands_on_a_command_line(house: House, name: str) -> None:
    words = " ".join(prepared(house, name, "--scope", SCOPE))
    for token in tokens(house, name).values():
        assert token not in words


def test_the_printed_flags_are_enough(house: House, name: str) -> None:
    text = house.terok("prepare", name, "--scope", SCOPE).stdout
    assert shlex.split(text) == prepared(house, name, "--scope", SCOPE)
    house.podman("run", "--detach", *shlex.split(text), house.image, *PATIENT)
    look = ("exec", name, "sh", "-c", "ls /run/terok; cat /etc/resolv.conf; echo $ANTHROPIC_API_KEY")
    first = house.podman(*look).stdout
    assert "vault.sock" in first
    assert "nameserver 127.0.0.1" in first
    assert tokens(house, name)["anthropic"] in first
    house.podman("stop", "--time", "5", name)
    house.podman("start", name)
    assert house.podman(*look).stdout == first


def test_preparing_again_changes_nothing_that_a_container_holds(house: House, name: str) -> None:
    prepared(house, name, "--scope", SCOPE)
    first = Path(house.bundle(name).env).read_text()
    prepared(house, name, "--scope", SCOPE)
    assert Path(house.bundle(name).env).read_text() == first
    old = known_digests(house, name)
    prepared(house, name, "--scope", "other", "--allow-missing")
    new = known_digests(house, name)
    assert not old & new, "tokens of another scope are other tokens, and the old ones are dead"
    assert new == {digest(token) for token in tokens(house, name).values()}


def test_a_running_container_keeps_its_wiring(house: House, name: str) -> None:
    house.terok("run", name, "--", "--detach", house.image, *PATIENT)
    for verb in (("prepare", name), ("cleanup", name), ("run", name, "--", house.image)):
        done = house.terok(*verb, check=False)
        assert done.returncode == Exit.REFUSED, verb
        assert f"podman {'start' if verb[0] == 'run' else 'stop'} {name}" in done.stderr
    house.podman("stop", "--time", "0", name)
    assert house.terok("cleanup", name).stdout == f"{name}: removed\n"


def test_cleanup_under_a_running_container_ends_its_services(house: House, name: str) -> None:
    house.terok("run", name, "--scope", SCOPE, "--", "--detach", house.image, *PATIENT)
    house.terok("cleanup", "--force", name)
    assert not known_digests(house, name)
    assert not os.path.exists(house.bundle(name).root)
    refused = house.podman("exec", name, "sh", "-c", "nslookup allowed.test 127.0.0.1", check=False)
    assert refused.returncode != 0
    assert house.podman("start", name, check=False).returncode in (0, 125, 126)


def test_cleanup_revokes_and_forgets_and_may_be_repeated(house: House, name: str) -> None:
    prepared(house, name, "--scope", SCOPE)
    assert known_digests(house, name)
    assert json.loads(house.terok("cleanup", "--json", name).stdout) == {name: True}
    assert not known_digests(house, name)
    assert not os.path.exists(house.bundle(name).root)
    assert not os.path.exists(house.layout.runtime_dir(name))
    assert json.loads(house.terok("cleanup", "--json", name).stdout) == {name: False}


def test_a_stopped_container_without_its_bundle_does_not_start(house: House, name: str) -> None:
    house.terok("run", name, "--", house.image, "true")
    house.terok("cleanup", name)
    assert house.podman("start", "--attach", name, check=False).returncode != 0


@pytest.mark.parametrize(
    "words",
    [
        ("--name=x", "IMAGE"),
        ("--net=host", "IMAGE"),
        ("-itv", "/tmp:/run/terok", "IMAGE"),
        ("--privileged", "IMAGE"),
        ("--security-opt=seccomp=unconfined", "IMAGE"),
    ],
)
def test_what_is_refused_leaves_nothing(house: House, name: str, words: tuple[str, ...]) -> None:
    done = house.terok("run", name, "--", *(house.image if word == "IMAGE" else word for word in words), check=False)
    assert done.returncode == Exit.REFUSED
    assert "fix:" in done.stderr
    assert not os.path.exists(house.bundle(name).root)


def test_the_vaults_directory_may_not_be_mounted(house: House, name: str) -> None:
    done = house.terok("run", name, "--", "-v", f"{house.home}:/x", house.image, check=False)
    assert done.returncode == Exit.REFUSED


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--network", "host"), Exit.REFUSED, "share the host's firewall"),
        (("--profiles", "nope"), Exit.NOT_FOUND, "nope"),
        (("--agent", "cluade", "--scope", SCOPE), Exit.USAGE, "claude"),
        (("--scope", "a/b"), Exit.USAGE, "usable name"),
    ],
)
def test_a_wrong_option_says_what_is_right(
    house: House, name: str, options: tuple[str, ...], code: int, says: str
) -> None:
    done = house.terok("run", name, *options, "--", house.image, "true", check=False)
    assert done.returncode == code
    assert says in done.stderr
    assert not os.path.exists(os.path.join(house.layout.containers, name)), "a refused launch leaves nothing"
    assert not known_digests(house, name)


def test_without_a_scope_what_needs_one_stays_away(house: House, name: str) -> None:
    done = house.terok("run", name, "--", "--rm", house.image, "sh", "-c", "ls /run/terok; env")
    assert "TEROK_" not in done.stdout
    assert "sock" not in done.stdout
    assert "--scope" in done.stderr


def test_without_the_shield_podmans_own_resolver_stays(house: House, name: str) -> None:
    out = run(house, name, "cat /etc/resolv.conf; ls /run/terok", "--no-shield", "--scope", SCOPE)
    assert "nameserver 127.0.0.1" not in out
    assert "vault.sock" in out


def test_the_profile_named_like_the_scope_is_applied(house: House, name: str) -> None:
    prepared(house, name, "--scope", SCOPE)
    assert json.loads(Path(house.bundle(name).meta).read_text())["profiles"] == ["dev-standard", SCOPE]


def test_agents_files_lie_in_the_users_home(house: House, name: str) -> None:
    script = "id -u; stat -c '%u %a' ~/.config/gh ~/.config/gh/config.yml ~/.claude.json; cat ~/.config/gh/config.yml"
    for user in ("0", "1000"):
        flags = ("--rm", "--user", user, "--env", "HOME=/home/agent")
        out = run(house, name, script + "; echo mine >>~/.claude.json", "--scope", SCOPE, flags=flags).splitlines()
        assert out[:4] == [user, f"{user} 755", f"{user} 600", f"{user} 600"]
        assert "git_protocol: https" in out and not [line for line in out if "vault.sock" in line]


def test_a_file_of_the_users_own_is_not_shadowed(house: House, name: str, tmp_path: Path) -> None:
    own = tmp_path / "home"
    own.mkdir()
    (own / ".claude.json").write_text('{"mine": true}')
    own.chmod(0o777)
    flags = ("--rm", "--volume", f"{own}:/home/agent", "--env", "HOME=/home/agent")
    out = run(house, name, "cat ~/.claude.json; ls -a ~", "--scope", SCOPE, flags=flags)
    assert '{"mine": true}' in out
    assert ".config" in out


def test_only_the_agents_that_were_asked_for(house: House, name: str) -> None:
    out = run(house, name, "env; ls -a ~", "--scope", SCOPE, "--agent", "gh", flags=("--rm", "--env", "HOME=/h"))
    assert "GH_TOKEN=" in out
    assert "\nANTHROPIC_" not in out  # TEROK_TOKEN_ANTHROPIC is for any client of the scope
    assert ".claude" not in out


def test_an_agent_without_credential_is_named_with_the_command(house: House, name: str) -> None:
    done = house.terok("prepare", name, "--scope", "other", "--allow-missing", "--agent", "gh")
    assert "terok vault add other github" in done.stderr


def test_restricted_mode_takes_away(house: House, name: str) -> None:
    script = (
        "grep -E 'NoNewPrivs|CapBnd' /proc/self/status; touch /x && echo writable; touch /tmp/x && echo tmp;"
        "echo >>~/.claude.json && echo writable; cat /etc/claude-code/managed-settings.json;"
        "cd /etc/claude-code; echo {} >managed-settings.json && echo writable; rm -f managed-settings.json; ls; exit 0"
    )
    out = run(house, name, script, "--scope", SCOPE, "--restricted", flags=("--rm", "--env", "HOME=/home/agent"))
    assert "NoNewPrivs:\t1" in out
    assert "CapBnd:\t00000000000000eb" in out
    assert "writable" not in out
    assert "tmp" in out
    assert '"disableBypassPermissionsMode": "disable"' in out
    assert out.splitlines()[-1] == "managed-settings.json"
    house.terok("prepare", name, "--restricted")
    status = json.loads(house.terok("status", name, "--json").stdout)["containers"][0]
    assert status["mode"] == "restricted"


def test_a_project_file_narrows_and_never_widens(house: House, name: str, tmp_path: Path) -> None:
    (tmp_path / ".terok.yml").write_text("network: none\nrestricted: true\n")
    house.terok("prepare", name, cwd=tmp_path)
    meta = json.loads(Path(house.bundle(name).meta).read_text())
    assert (meta["network"], meta["restricted"]) == ("none", True)
    (tmp_path / ".terok.yml").write_text("network: bridge\n")
    assert house.terok("prepare", name, cwd=tmp_path, check=False).returncode == Exit.REFUSED


def test_launches_at_the_same_time_do_not_mix(house: House, nothing_left: None) -> None:
    names = [f"many-{index}" for index in range(8)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda name: house.terok("prepare", name, "--scope", SCOPE), names))
    assert all(done.returncode == 0 for done in results)
    everything = [token for name in names for token in tokens(house, name).values()]
    assert len(set(everything)) == len(everything) == 3 * len(names)
    house.terok("cleanup", *names)


API = """
import json, os, sys
from terok_host.runtime.kit.config import load
from terok_host.runtime import launch
cfg = load(os.environ)
flags, plan = launch.compose(sys.argv[1], cfg=cfg, shield=True, gate=False, broker=True, scope=sys.argv[2] or None)
print(json.dumps([flags, plan.to_dict()]))
if len(sys.argv) > 3:
    sys.stdout.flush()
    launch.exec_podman(flags, sys.argv[3:])
"""


def api(house: House, name: str, scope: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return house.run([sys.executable, "-c", API, name, scope, *words], check=check)


def test_an_orchestrator_uses_the_python_api(house: House, name: str) -> None:
    done = api(house, name, SCOPE, "--rm", house.image, "sh", "-c", "ls /run/terok")
    first, rest = done.stdout.split("\n", 1)
    flags, plan = json.loads(first)
    assert flags[:2] == ["--name", name]
    assert plan == {"scope": SCOPE, "shield": True, "gate": False, "broker": True, "ssh": True}
    assert rest.split() == ["authority.pem", "ca.pem", "java.jks", "ssh-agent.sock", "vault.sock"]
    without = api(house, name, "")
    assert json.loads(without.stdout)[1]["broker"] is False
    assert "the vault" in without.stderr
    meta = json.loads(Path(house.bundle(name).meta).read_text())
    assert WiringPlan.from_dict(meta).broker is False
    assert "There is no scope nowhere" in api(house, "no-such", "nowhere", check=False).stderr


KNOCK = """
import socket, sys
link = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5)
try:
    link.sendall({"http": b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n", "agent": b"\\0\\0\\0\\1\\x0b"}[sys.argv[2]])
    print("answered" if link.recv(100) else "closed")
except ConnectionError:
    print("closed")
"""


def test_tcp_mode_keeps_its_ports(house: House, name: str) -> None:
    config = Path(house.layout.config_file)
    config.write_text("services: {mode: tcp}\n")
    try:
        house.terok("run", name, "--network", "auto", "--scope", SCOPE, "--", "--detach", house.image, *PATIENT)
        meta = json.loads(Path(house.bundle(name).meta).read_text())
        assert len(set(meta["ports"])) == 3
        look = ("exec", name, "netstat", "-ltn")
        assert "127.0.0.1:9419" in house.podman(*look).stdout
        listening = [listening_ports(meta["ports"])]
        ask = "curl --silent --output /dev/null --max-time 9 --write-out %{http_code} http://"
        gateway = "10.0.2.2" if meta["network"] == "slirp4netns" else "169.254.1.2"
        with socket.create_server(("127.0.0.1", 0)) as other:
            answers = [
                house.podman("exec", name, "sh", "-c", ask + address, check=False).stdout
                for address in (
                    f"{gateway}:{meta['ports'][0]}/v1/models",
                    f"host.containers.internal:{meta['ports'][0]}/v1/models",
                    "127.0.0.1:9419/v1/models",
                    f"{gateway}:{other.getsockname()[1]}/",
                )
            ]
        assert answers == ["401", "401", "401", "000"], (
            "the vault asks for a token on every way; nothing else of the host answers"
        )
        for port, question in zip(meta["ports"], ("http", "agent", "http"), strict=True):
            words = ("-c", KNOCK, str(port), question)
            assert house.run([sys.executable, *words]).stdout == "answered\n"
            stranger = ("unshare", "setpriv", "--reuid=7", "--clear-groups", "python3", *words)
            assert house.podman(*stranger).stdout == "closed\n", "another user of the host is not served"
        house.podman("restart", "--time", "0", name)
        listening.append(listening_ports(meta["ports"]))
        assert listening == [set(meta["ports"])] * 2
        house.podman("stop", "--time", "0", name)
        assert not listening_ports(meta["ports"])
    finally:
        config.unlink()


def listening_ports(ports: list[int]) -> set[int]:
    """Which of the ports have a listener on 127.0.0.1 (proc_net_tcp(5): state 0A)."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state = line.split()[:4]
        address, port = local.split(":")
        if state == "0A" and address == "0100007F":
            found.add(int(port, 16))
    return found & set(ports)


def test_the_configuration_of_this_house_is_read(house: House, nothing_left: None) -> None:
    assert load(house.env, uid=os.getuid()).layout.data == house.layout.data


def test_a_port_that_was_taken_meanwhile_is_named_with_its_owner(house: House, name: str) -> None:
    config = Path(house.layout.config_file)
    config.write_text("services: {mode: tcp}\n")
    try:
        house.terok("run", name, "--scope", SCOPE, "--", house.image, "true")
    finally:
        config.unlink()
    port = json.loads(Path(house.bundle(name).meta).read_text())["ports"][1]
    until(lambda: is_free(port))  # `podman run` returns before its poststop hook has
    with socket.create_server(("127.0.0.1", port)):
        assert house.podman("start", "--attach", name, check=False).returncode != 0
        error = json.loads(house.terok("status", name, "--json").stdout)["containers"][0]["error"]
    assert f"127.0.0.1:{port}" in error
    assert "has it" in error
    assert house.podman("start", "--attach", name).returncode == 0


def test_an_image_with_nothing_but_one_static_binary(house: House, name: str, nothing_left: None) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        tar.add("/usr/bin/busybox", "busybox")
    house.podman("import", "--quiet", "-", "localhost/scratch:1", stdin=content.getvalue())
    words = ("--user", "1000", "localhost/scratch:1", "/busybox")
    done = house.terok("run", name, "--scope", SCOPE, "--", "--rm", *words, "cat", "/etc/resolv.conf")
    assert "nameserver 127.0.0.1" in done.stdout
    done = house.terok("run", name, "--scope", SCOPE, "--", "--rm", *words, "ls", "/run/terok", "/.config/gh")
    assert {"vault.sock", "ssh-agent.sock", "gate.sock", "config.yml"} <= set(done.stdout.split())
    house.podman("rmi", "--force", "localhost/scratch:1")


def test_the_bridge_script_sets_what_a_shell_lacks(house: House, name: str) -> None:
    flags = ("--rm", "--volume", f"{bridges_resource_dir()}:/bridges:ro", "--env", "SSH_AUTH_SOCK=/mine")
    script = "unset TEROK_VAULT_SOCKET; . /bridges/env.sh; echo $TEROK_VAULT_SOCKET $SSH_AUTH_SOCK"
    assert run(house, name, script, "--scope", SCOPE, flags=flags).split() == ["/run/terok/vault.sock", "/mine"]
