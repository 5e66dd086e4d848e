"""A real sshd that lets the calling user in with given keys."""

from __future__ import annotations

import atexit
import functools
import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

HOST = "127.0.0.1"
HOST_KEYS = {"ed25519": ["-t", "ed25519"], "ecdsa": ["-t", "ecdsa", "-b", "384"], "rsa": ["-t", "rsa", "-b", "2048"]}


@functools.cache
def made_host_keys() -> Path:
    """A directory with one host key of each type; made once, because an RSA key takes its time."""
    directory = Path(tempfile.mkdtemp(prefix="tk"))
    atexit.register(shutil.rmtree, directory)
    for kind, words in HOST_KEYS.items():
        command = ["ssh-keygen", "-q", "-N", "", "-f", str(directory / f"host_{kind}"), *words]
        subprocess.run(command, check=True, timeout=60)
    return directory


@functools.cache
def forgiving() -> str:
    """The line without which OpenSSH 9.8 and newer turn away clients that asked for host keys alone; older: none."""
    line = "PerSourcePenalties no\n"
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(f"HostKey {made_host_keys()}/host_ed25519\n{line}")
        file.flush()
        known = subprocess.run(["/usr/sbin/sshd", "-t", "-f", file.name], capture_output=True, timeout=60)
    return "" if b"PerSourcePenalties" in known.stderr else line


class Sshd:
    """An OpenSSH server from entering the context until leaving it.

    Args:
        base: an empty directory.
        authorized: lines of authorized_keys.
        address, port: where it listens; by default on loopback and a free port.

    Attributes:
        user: whom it lets in: the caller.
    """

    def __init__(self, base: Path, authorized: str, *, address: str = HOST, port: int = 0) -> None:
        self.base, self.user, self.address = base, getpass.getuser(), address
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
            self.port = int(probe.getsockname()[1])
        for path in made_host_keys().iterdir():
            shutil.copy(path, base)
        (base / "authorized_keys").write_text(authorized)
        (base / "sshd_config").write_text(
            f"ListenAddress {address}\nPort {self.port}\nPidFile none\nUsePAM no\nStrictModes no\nLogLevel VERBOSE\n"
            f"AuthorizedKeysFile {base}/authorized_keys\nPasswordAuthentication no\nPermitRootLogin yes\n"
            "KbdInteractiveAuthentication no\nSubsystem sftp internal-sftp\nMaxStartups 100\n"
            + forgiving()
            + "".join(f"HostKey {base}/host_{kind}\n" for kind in HOST_KEYS)
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        """HOST:PORT."""
        return f"{self.address}:{self.port}"

    def host_key(self, kind: str = "ed25519") -> str:
        """The path of a host key's public half."""
        return str(self.base / f"host_{kind}.pub")

    def ssh(self, *options: str) -> list[str]:
        """The ssh client's command line up to the host, with no key and no configuration but the agent."""
        known = self.base / "known_hosts"
        name = f"[{self.address}]:{self.port}"
        known.write_text("".join(f"{name} {Path(self.host_key(kind)).read_text()}" for kind in HOST_KEYS))
        words = ["ssh", "-F", "none", "-p", str(self.port), "-o", "BatchMode=yes", "-o", "IdentityFile=/nonexistent"]
        words += ["-o", f"UserKnownHostsFile={known}", "-o", "GlobalKnownHostsFile=none", "-o", "LogLevel=ERROR"]
        return [*words, *options]

    def log(self) -> str:
        """What sshd printed."""
        return (self.base / "log").read_text()

    def __enter__(self) -> Sshd:
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with (self.base / "log").open("wb") as log:
            command = ["/usr/sbin/sshd", "-D", "-e", "-f", str(self.base / "sshd_config")]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection((self.address, self.port), timeout=1).close()
                return self
            except ConnectionRefusedError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.__exit__(None, None, None)
                    raise AssertionError(f"sshd does not listen:\n{self.log()}") from None
                time.sleep(0.01)  # refused at once while it starts: there is no event to wait for

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(10)
