"""The leak check itself: it sees each kind of thing that could be left behind."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

from tests.lab import leaks
from tests.lab.house import House


def kinds(found: list[str]) -> set[str]:
    return {line.partition(":")[0] for line in found}


def test_nothing_is_left_of_nothing(house: House) -> None:
    assert leaks.left(house, leaks.take(house), within=0) == []


def test_a_process_with_namespaces_of_its_own(house: House) -> None:
    before = leaks.take(house)
    # it names the house in its arguments, and forks away from this process
    script = f"sleep 60 & echo $! >{house.base}/pid"
    house.run(["podman", "unshare", "setsid", "-f", "unshare", "--net", "--mount", "sh", "-c", f"{script}; wait"])
    pid_file = house.base / "pid"
    found = leaks.left(house, before, within=0)
    while "namespaces" not in kinds(found) or not pid_file.exists() or not pid_file.read_text():
        found = leaks.left(house, before, within=0)
    os.kill(int(pid_file.read_text()), signal.SIGKILL)
    pid_file.unlink()
    assert {"processes", "namespaces"} <= kinds(found)
    assert leaks.left(house, before, within=3) == []


def test_a_file_and_a_socket(house: House) -> None:
    before = leaks.take(house)
    path = Path(house.layout.runtime) / "left.sock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert {"files", "sockets"} <= kinds(leaks.left(house, before, within=0))
    path.unlink()
    assert leaks.left(house, before, within=3) == []


def test_a_mount(house: House) -> None:
    before = leaks.take(house)
    point = house.base / "mounted"
    point.mkdir()
    house.podman("unshare", "mount", "-t", "tmpfs", "left", str(point))
    assert "mounts" in kinds(leaks.left(house, before, within=0))
    house.podman("unshare", "umount", str(point))
    point.rmdir()
    assert leaks.left(house, before, within=3) == []
