"""`terok status` in every phase of a container's life, and `terok logs`."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from terok_host.runtime.care import status
from terok_host.supervisor.ground.errors import Exit
from tests.lab.house import House

PATIENT = ("sh", "-c", "trap exit TERM; sleep 1000 & wait")


def look(house: House, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(house.terok("status", name, "--json").stdout)["containers"][0]
    return found


def test_a_life_as_status_shows_it(house: House, name: str) -> None:
    assert house.terok("status", name, check=False).returncode == Exit.NOT_FOUND
    house.terok("prepare", name, "--scope", "proj", "--allow-missing")
    found = look(house, name)
    assert (found["state"], found["scope"], found["mode"]) == ("prepared", "proj", "standard")
    house.terok("run", name, "--scope", "proj", "--allow-missing", "--", "--detach", house.image, *PATIENT)
    found = look(house, name)
    pid = int(house.podman("inspect", "--format", "{{.State.Pid}}", name).stdout)
    assert (found["state"], found["container_pid"]) == ("running", pid)
    supervisor = found["supervisor"]
    assert supervisor["state"] == "ready"
    assert supervisor["pid"] != pid
    assert 1_000_000 < supervisor["memory"] < 60_000_000
    assert supervisor["uptime"] >= 0
    states = {each["name"]: each["state"] for each in found["sidecars"]}
    assert states["dnsmasq"] == "running"
    assert states["vault"] == states["ssh"] == states["gate"] == "waiting"
    shown = house.terok("status", name).stdout
    assert "on demand" in shown and "waiting" not in shown
    assert f"{house.layout.runtime_dir(name)}/vault.sock" in found["sockets"]
    house.podman("stop", "--time", "5", name)
    found = look(house, name)
    assert found["state"] == "stopped"
    assert (found["supervisor"]["pid"], found["container_pid"], found["sockets"]) == (None, None, [])


def test_a_sidecar_that_was_killed_shows_its_restart(house: House, name: str) -> None:
    house.terok("run", name, "--", "--detach", house.image, *PATIENT)
    first = next(each for each in look(house, name)["sidecars"] if each["name"] == "dnsmasq")
    os.kill(first["pid"], signal.SIGKILL)
    second = house.run(["sh", "-c", f"""
        for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
            {house.program} status {name} --json >out
            grep -q '"restarts": 1' out && grep -q '"state": "running"' out && break
        done; cat out"""]).stdout  # fmt: skip
    after = next(each for each in json.loads(second)["containers"][0]["sidecars"] if each["name"] == "dnsmasq")
    assert (after["restarts"], after["state"]) == (1, "running")
    assert after["pid"] != first["pid"]
    assert "9" in after["last_exit"] or "KILL" in after["last_exit"].upper()


def test_the_reason_of_a_refused_start_is_shown(house: House, name: str) -> None:
    house.terok("prepare", name)
    Path(house.bundle(name).ruleset).write_text("this is no ruleset")
    flag = f"--annotation=terok.sandbox.sidecar={house.bundle(name).sidecar}"
    drop = ("--cap-drop=NET_ADMIN,NET_RAW", "--network=slirp4netns")
    assert house.podman("run", "--name", name, flag, *drop, house.image, "true", check=False).returncode != 0
    found = look(house, name)
    assert found["state"] == "failed"
    assert found["error"]
    assert found["error"] in house.terok("status").stdout


def test_a_refusal_without_any_bundle_is_shown_too(house: House, name: str) -> None:
    done = house.podman("run", "--name", name, "--annotation=terok.scope=nobody", house.image, "true", check=False)
    assert done.returncode != 0
    try:
        assert "nobody" in json.loads(house.terok("status", "--json").stdout)["refused"]
        assert "last refused start" in house.terok("status").stdout
    finally:
        Path(house.layout.hook_error).unlink()


def test_logs_show_refusals_with_what_allows_them(house: House, name: str) -> None:
    house.terok("prepare", name)
    audit = Path(house.bundle(name).audit)
    served = {"time": "t1", "source": "vault", "event": "request", "path": "/v1/x"}
    refusal = {"time": "t2", "source": "shield", "event": "dns", "verdict": "refused", "reason": "not so\x1b[2J"}
    lines = [served, {**refusal, "allow": "x"}]
    audit.write_text("".join(json.dumps(line) + "\n" for line in lines) + "torn {\n")
    assert json.loads(house.terok("logs", name, "--json").stdout) == lines
    refused = house.terok("logs", name, "--refused").stdout
    assert refused == 't2 shield dns refused reason="not so\N{REPLACEMENT CHARACTER}[2J" allow=x\n'
    assert json.loads(house.terok("logs", name, "--source", "vault", "--json").stdout) == lines[:1]
    assert json.loads(house.terok("logs", name, "-n", "1", "--json").stdout) == lines[1:]


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (0.4, "0s"), (59.9, "59s"), (190, "3m10s"), (18120, "5h02m"), (273600, "3d04h")]
)
def test_durations_for_people(nothing_left: None, seconds: float | None, text: str) -> None:
    assert status.duration(seconds) == text
