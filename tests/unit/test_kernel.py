"""Confinement as the kernel enforces it."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from terok_host.sidecars.kit.confine import confine
from terok_host.supervisor.ground import kernel, process, within


def confined(body: Callable[[], object], **grants: object) -> str:
    """Run `body` in a confined child; returns "" or the kind of error that ended it."""

    def child() -> tuple[bytes, list[int]]:
        confine(**grants)  # type: ignore[arg-type]  # forwarded as given
        try:
            body()
        except OSError as error:
            return type(error).__name__.encode(), []
        return b"", []

    return within.call_in(process.Namespaces(), child, timeout=10)[0].decode()


PORTS_REFUSED = "PermissionError" if kernel.landlock_abi() >= 4 else ""
"""What a port that is not granted gives: Landlock knows TCP ports from ABI 4 (kernel 6.7) on; Debian 12 has ABI 2."""


def test_this_kernel_has_landlock() -> None:
    assert kernel.landlock_abi() >= 1


@pytest.mark.parametrize("abi", [abi for abi in (1, 2, 3, 4, 5, 6) if abi <= kernel.landlock_abi()])
def test_older_kernels_confine_what_they_can(abi: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules for an older ABI are taken by a newer kernel, so they can be tried here."""
    monkeypatch.setattr(kernel, "landlock_abi", lambda: abi)
    other = tmp_path / "other"
    other.write_text("x")
    assert confined(lambda: other.read_text()) == "PermissionError"
    assert confined(lambda: other.write_text("y"), read=[str(tmp_path)]) == "PermissionError"
    assert confined(lambda: other.write_text("y"), write=[str(tmp_path)]) == ""
    bound = confined(lambda: socket.create_server(("127.0.0.1", 0)).close())
    assert bound == ("PermissionError" if abi >= 4 else "")


def test_only_granted_files_can_be_read_and_written(tmp_path: Path) -> None:
    granted, other = tmp_path / "granted", tmp_path / "other"
    granted.mkdir()
    (granted / "file").write_text("x")
    other.write_text("x")
    assert confined(lambda: (granted / "file").read_text(), read=[str(granted)]) == ""
    assert confined(lambda: (granted / "file").write_text("y"), read=[str(granted)]) == "PermissionError"
    assert confined(lambda: (granted / "new").write_text("y"), write=[str(granted)]) == ""
    assert confined(lambda: other.read_text(), read=[str(granted)]) == "PermissionError"
    assert confined(lambda: other.read_text(), read=[str(granted / "file")]) == "PermissionError"
    assert confined(lambda: os.listdir(str(Path.home() / ".")), read=[str(granted)]) == "PermissionError"


def test_a_missing_grant_is_passed_over(tmp_path: Path) -> None:
    assert confined(lambda: None, read=[str(tmp_path / "missing")]) == ""


def test_nothing_can_be_executed_unless_granted() -> None:
    def run() -> None:
        os.execv("/bin/true", ["true"])

    assert confined(run, read=["/"]) == "PermissionError"


def test_only_granted_ports_can_be_connected_to() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def connect() -> None:
            with socket.socket() as client:
                client.connect(("127.0.0.1", port))

        assert confined(connect, connect_ports=[port]) == ""
        assert confined(connect, connect_ports=[port ^ 1]) == PORTS_REFUSED
        assert confined(connect) == PORTS_REFUSED
        assert confined(connect, connect_ports=None) == ""


def test_binding_a_port_is_refused() -> None:
    assert confined(lambda: socket.create_server(("127.0.0.1", 0)).close(), connect_ports=None) == PORTS_REFUSED


def test_capabilities_and_privileges_are_gone() -> None:
    def status() -> tuple[bytes, list[int]]:
        confine(read=["/proc"])
        return Path("/proc/thread-self/status").read_bytes(), []

    text = within.call_in(process.Namespaces(), status, timeout=10)[0].decode()
    fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    assert {fields[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert fields["NoNewPrivs"] == "1"


@pytest.mark.parametrize("link", ["/etc/passwd", "../../../../etc/passwd"])
def test_openat2_stays_inside_of_the_root(tmp_path: Path, link: str) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text("inside")
    (tmp_path / "link").symlink_to(link)
    root = os.open(tmp_path, os.O_PATH)
    fd = kernel.openat2(root, "link", os.O_RDONLY, resolve=kernel.RESOLVE_IN_ROOT)
    assert os.read(fd, 100) == b"inside"
    os.close(fd)
    os.close(root)


def test_a_deletion_is_an_event(tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    fd = kernel.watch_deletion(str(folder))
    waiting = select.poll()
    waiting.register(fd, select.POLLIN)
    assert not waiting.poll(0)
    folder.rmdir()
    assert waiting.poll(2000)
    os.close(fd)
    with pytest.raises(FileNotFoundError):
        kernel.watch_deletion(str(folder))
