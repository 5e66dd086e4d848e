"""The Python API of launch, as far as it needs no Podman: names, types, plans, resources, the printed form."""

from __future__ import annotations

import inspect
import json
import os
import shlex
import socket
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terok_host.runtime import launch
from terok_host.runtime.host import podman
from terok_host.runtime.kit.config import Config, NetworkConfig, Services
from terok_host.runtime.launch import PerContainerResources, WiringPlan, resources
from terok_host.runtime.launch.bundle import env_file
from terok_host.runtime.launch.request import Request, decide
from terok_host.supervisor.ground.errors import Exit, TerokError
from terok_host.supervisor.ground.layout import Layout


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    """A configuration whose directories are the test's own."""
    return Config(Layout(f"{tmp_path}/data", f"{tmp_path}/run", f"{tmp_path}/config"))


def tcp(cfg: Config, port_range: tuple[int, int] | None = None) -> Config:
    return Config(cfg.layout, services=Services(mode="tcp"), network=NetworkConfig(port_range=port_range))


def test_constants_are_what_orchestrators_rely_on() -> None:
    assert launch.LOOPBACK_VAULT_PORT == 9419
    assert launch.CONTAINER_BRIDGES_DIR == "/usr/local/share/terok-sandbox/bridges"
    assert (
        frozenset({"--name", "--network", "--hooks-dir", "--annotation", "--cap-add", "--cap-drop", "--userns"})
        == launch.SANDBOX_MANAGED_FLAGS
    )


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (launch.allocate_per_container_resources, "cfg container"),
        (launch.run_state_dir, "cfg container"),
        (launch.bridges_resource_dir, ""),
        (launch.compose, "container *cfg *shield *gate *broker *scope *profiles *publish *allow_missing"),
        (launch.exec_podman, "sandbox_args podman_args"),
        (launch.reject_managed_flags, "podman_args"),
        (launch.cleanup, "container *cfg"),
        (launch.format_args, "args *output_json"),
    ],
)
def test_signatures(function: object, parameters: str) -> None:
    assert callable(function)
    found = [
        ("*" if each.kind is each.KEYWORD_ONLY else "") + each.name
        for each in inspect.signature(function).parameters.values()
    ]
    assert " ".join(found) == parameters
    assert inspect.getdoc(function)


def test_everything_public_is_documented() -> None:
    for name in launch.__all__:
        value = getattr(launch, name)
        assert not callable(value) or (inspect.getdoc(value) or "").strip(), name


PLANS = st.builds(
    WiringPlan,
    scope=st.none() | st.text(min_size=1),
    shield=st.booleans(),
    gate=st.booleans(),
    broker=st.booleans(),
    ssh=st.booleans(),
)


@given(PLANS)
def test_a_plan_survives_json(plan: WiringPlan) -> None:
    assert WiringPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    assert WiringPlan.from_dict({**plan.to_dict(), "newer": 1}) == plan


@pytest.mark.parametrize("change", [{"scope": 3}, {"shield": None}, {"gate": "yes"}, {"broker": 1}, {"ssh": None}])
def test_a_damaged_plan_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        WiringPlan.from_dict({**WiringPlan(None, True, True, True, True).to_dict(), **change})


@pytest.mark.parametrize("scope", [None, "proj"])
@given(shield=st.booleans(), gate=st.booleans(), broker=st.booleans(), ssh=st.booleans())
def test_what_needs_a_scope_is_left_out_with_a_note(
    scope: str | None, shield: bool, gate: bool, broker: bool, ssh: bool
) -> None:
    cfg = Config(Layout("/d", "/r", "/c"))
    plan, notes = decide(Request("c", shield=shield, gate=gate, broker=broker, ssh=ssh, scope=scope), cfg)
    assert plan.shield is shield
    if scope is None:
        assert (plan.gate, plan.broker, plan.ssh) == (False, False, False)
        assert bool(notes) is (gate or broker or ssh)
    else:
        assert (plan.gate, plan.broker, plan.ssh) == (gate, broker, ssh)
        assert not notes


def test_setup_missing_is_a_system_exit_with_the_command(cfg: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", cfg.layout.data)
    with pytest.raises(SystemExit) as caught:
        launch.compose("c", cfg=cfg, shield=True, gate=True, broker=True, scope=None)
    assert "terok setup" in str(caught.value.code)
    assert not os.path.exists(cfg.layout.containers), "nothing was written"


def test_directories_are_private_whatever_the_umask(cfg: Config) -> None:
    old = os.umask(0)
    try:
        state = launch.run_state_dir(cfg, "web")
        found = launch.allocate_per_container_resources(cfg, "web")
    finally:
        os.umask(old)
    assert state == cfg.layout.bundle("web").root
    assert found == PerContainerResources(cfg.layout.runtime_dir("web"), None, None, None)
    for path in (state, found.container_runtime_dir, cfg.layout.runtime):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o700, path


@pytest.mark.parametrize("name", ["", "..", "a/b", "-x", "a b", "x" * 129, "é"])
def test_a_bad_name_reaches_no_path(cfg: Config, name: str) -> None:
    for function in (launch.run_state_dir, launch.allocate_per_container_resources):
        with pytest.raises(TerokError):
            function(cfg, name)
    with pytest.raises(TerokError):
        launch.cleanup(name, cfg=cfg)


def test_a_socket_path_that_is_too_long_says_what_to_shorten(tmp_path: Path) -> None:
    cfg = Config(Layout(str(tmp_path), str(tmp_path / ("r" * 90)), str(tmp_path)))
    with pytest.raises(TerokError, match="107") as caught:
        launch.allocate_per_container_resources(cfg, "web")
    assert "shorten" in caught.value.fix


def test_tcp_mode_gives_three_ports_that_stay(cfg: Config) -> None:
    found = launch.allocate_per_container_resources(tcp(cfg), "web")
    ports = [found.token_broker_port, found.ssh_signer_port, found.gate_port]
    assert len(set(ports)) == 3
    assert all(port is not None and port >= 1024 for port in ports)
    Path(launch.run_state_dir(cfg, "web"), "meta.json").write_text(json.dumps({"ports": ports}))
    assert launch.allocate_per_container_resources(tcp(cfg), "web") == found
    other = launch.allocate_per_container_resources(tcp(cfg), "other")
    assert not {other.token_broker_port, other.ssh_signer_port, other.gate_port} & set(ports)


def test_ports_come_from_the_configured_range_and_busy_ones_are_passed_over(cfg: Config) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        first = busy.getsockname()[1]
        found = resources.pick_ports(tcp(cfg, (first, first + 40)), 3)
        assert all(first < port <= first + 40 for port in found)
        with pytest.raises(TerokError, match="No free port"):
            resources.pick_ports(tcp(cfg, (first, first + 40)), 42)


def test_cleanup_of_nothing_is_false_and_harmless(cfg: Config) -> None:
    assert launch.cleanup("web", cfg=cfg) is False
    launch.run_state_dir(cfg, "web")
    assert launch.cleanup("web", cfg=cfg) is True
    assert launch.cleanup("web", cfg=cfg) is False


@given(st.lists(st.text(st.characters(exclude_characters="\0"), max_size=20), max_size=6))
def test_printed_arguments_read_back_unchanged(args: list[str]) -> None:
    assert shlex.split(launch.format_args(args, output_json=False)) == args
    assert json.loads(launch.format_args(args, output_json=True)) == args


def test_an_env_file_holds_values_as_they_are() -> None:
    assert env_file({"A": "x y=$z#", "B": ""}) == "A=x y=$z#\nB=\n"
    for name, value in (("A", "two\nlines"), ("", "x"), ("A=B", "x"), ("#A", "x"), ("A", "\0")):
        with pytest.raises(TerokError):
            env_file({name: value})


def test_bridges_are_scripts_that_a_posix_shell_reads() -> None:
    scripts = list(Path(launch.bridges_resource_dir()).glob("*.sh"))
    assert scripts
    for script in scripts:
        assert "bash" not in script.read_text()


BOTH = frozenset({"pasta", "slirp4netns"})


@pytest.mark.parametrize(
    ("mode", "rootless", "version", "programs", "expected"),
    [
        ("auto", True, (4, 3, 1), BOTH, "slirp4netns"),
        ("auto", True, (4, 3, 1), frozenset({"slirp4netns"}), "slirp4netns"),
        ("auto", True, (4, 9), frozenset({"pasta"}), "pasta"),
        ("auto", True, (5, 4, 2), BOTH, "pasta"),
        ("auto", True, (5, 4, 2), frozenset({"slirp4netns"}), "slirp4netns"),
        ("auto", False, (5, 4, 2), frozenset(), "bridge"),
        ("none", True, (4, 3, 1), frozenset(), "none"),
        ("bridge", True, (5, 0), frozenset(), "bridge"),
    ],
)
def test_the_network_that_fits_podman(
    mode: str, rootless: bool, version: tuple[int, ...], programs: frozenset[str], expected: str
) -> None:
    plan = podman.plan_network(mode, rootless=rootless, podman=version, programs=programs)
    assert plan.mode == expected
    assert plan.flag.startswith(expected)
    assert plan.host is None


def test_pasta_is_told_where_to_answer_dns() -> None:
    plan = podman.plan_network("pasta", rootless=True, podman=(5, 4), programs=BOTH)
    assert plan.flag == "pasta:--dns-forward,169.254.1.1"
    assert plan.forwarder == "169.254.1.1"


def test_tcp_mode_reaches_the_host_through_the_gateway() -> None:
    for mode, host in (("pasta", "169.254.1.2"), ("slirp4netns", "10.0.2.2")):
        plan = podman.plan_network(mode, rootless=True, podman=(5, 4), programs=BOTH, host_loopback=True)
        assert plan.host == host


def test_the_hosts_network_is_refused_with_the_reason() -> None:
    with pytest.raises(TerokError, match="share the host's firewall") as caught:
        podman.plan_network("host", rootless=True, podman=(5,), programs=BOTH)
    assert caught.value.code == Exit.REFUSED


@pytest.mark.parametrize(
    ("mode", "version", "programs"),
    [
        ("auto", (5,), frozenset()),
        ("auto", (4, 3), frozenset({"pasta"})),
        ("pasta", (4, 3), BOTH),
        ("pasta", (5,), frozenset()),
        ("slirp4netns", (5,), frozenset({"pasta"})),
        ("wormhole", (5,), BOTH),
    ],
)
def test_a_network_that_can_not_work_names_the_mend(
    mode: str, version: tuple[int, ...], programs: frozenset[str]
) -> None:
    with pytest.raises(TerokError) as caught:
        podman.plan_network(mode, rootless=True, podman=version, programs=programs)
    assert caught.value.fix


def test_resolvers_of_a_bridge_are_reachable_ones(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("# x\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver 192.0.2.1\noptions edns0\n")
    assert podman.host_resolvers(str(path)) == ["192.0.2.1"]
    assert podman.host_resolvers(str(tmp_path / "missing")) == []
