"""One operator's surroundings for tests, the demonstration and the measurements: own home, Podman storage, image.

Everything lives below one short directory, so that removing it removes all, and so that a leak is recognised by it.
Nothing of the caller's own Podman is touched.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from terok_host.supervisor.ground.layout import Bundle, Layout

from . import image

LAB = Path(__file__).parent
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
DNS_ADDRESS = "198.51.100.53"
"""What /etc/resolv.conf names in the lab."""

PATIENT = "trap exit TERM; sleep 1000 & wait"
"""What a container's shell runs that does nothing and ends at once when it is asked to."""

STORAGE_CONF = """\
[storage]
driver = "overlay"
runroot = "{runtime}/containers"
graphroot = "{home}/.local/share/containers/storage"
"""
ENGINE_CONF = """\
[engine]
lock_type = "file"
events_logger = "file"
"""
LOOPBACK_CONF = """\
[engine]
network_cmd_options = ["allow_host_loopback=true"]
"""


def in_lab() -> bool:
    """This process runs in the private namespaces of tests/lab/lab.sh."""
    return os.environ.get("TEROK_LAB") == "1"


class CommandFailed(AssertionError):
    """A command that should have worked did not; the message has what it printed."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        super().__init__(f"exit {done.returncode}: {' '.join(done.args)}\n{done.stdout}{done.stderr}")
        self.done = done


def _wait(process: subprocess.Popen[bytes], timeout: float) -> None:
    """Wait without the steps of up to 50 ms in which Popen.wait polls, which no measurement could see through."""
    pidfd = os.pidfd_open(process.pid)
    waiting = select.poll()
    waiting.register(pidfd, select.POLLIN)
    try:
        ended = waiting.poll(timeout * 1000)
    finally:
        os.close(pidfd)
    if not ended:
        process.kill()
        raise subprocess.TimeoutExpired(process.args, timeout)


class House:
    """An operator's home with Podman storage and the test image in it.

    Args:
        base: a directory of its own, with a short path (socket paths are limited to 107 bytes).
    """

    image = "localhost/terok-test:1"

    def __init__(self, base: Path) -> None:
        self.base = base
        self.home, self.runtime = base / "home", base / "run"
        self.program = Path(sys.executable).parent / "terok"
        self.env: dict[str, str] = {
            "PATH": PATH,
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "XDG_RUNTIME_DIR": str(self.runtime),
            **{name: os.environ[name] for name in ("TEROK_LAB", "DBUS_SESSION_BUS_ADDRESS") if name in os.environ},
        }

    @classmethod
    def build(cls, *, setup: bool = True) -> House:
        """Make the directories, Podman's configuration and the image; run `terok setup` when asked."""
        house = cls(Path(tempfile.mkdtemp(prefix="tk", dir="/tmp")))
        for directory in (house.home, house.runtime):
            directory.mkdir(mode=0o700)
        conf = house.home / ".config/containers"
        conf.mkdir(parents=True)
        if in_lab():
            shutil.copy(LAB / "containers.conf", conf / "containers.conf")
        else:
            own = Path.home() / ".config/containers/containers.conf"
            if own.exists():
                shutil.copy(own, conf / "containers.conf")
            # Podman's locks are one shared memory object a uid: keep away from the caller's own containers
            (conf / "containers.conf.d").mkdir()
            (conf / "containers.conf.d/10-house.conf").write_text(ENGINE_CONF)
        (conf / "storage.conf").write_text(STORAGE_CONF.format(home=house.home, runtime=house.runtime))
        house.run(["podman", "import", "--quiet", "--change", 'CMD ["/bin/sh"]', "-", cls.image], stdin=image.build())
        if setup:
            house.terok("setup")
        return house

    def share_loopback(self) -> None:
        """Without the lab: containers behind slirp4netns reach the host's loopback interface as 10.0.2.2."""
        (self.home / ".config/containers/containers.conf.d/20-loopback.conf").write_text(LOOPBACK_CONF)

    def destroy(self) -> None:
        """Remove every container, Podman's own helper process and the files."""
        self.run(["podman", "rm", "--all", "--force", "--time", "0"], check=False)
        self.run(["podman", "unshare", "rm", "-rf", str(self.home / ".local/share/containers")], check=False)
        self.run(["podman", "system", "migrate"], check=False)  # ends the pause process
        shutil.rmtree(self.base, ignore_errors=True)

    @property
    def layout(self) -> Layout:
        """Where terok keeps things in this house."""
        return Layout.from_environ(self.env, uid=os.getuid())

    def bundle(self, name: str) -> Bundle:
        """The state bundle of a container."""
        return self.layout.bundle(name)

    def run(
        self,
        argv: list[str],
        *,
        stdin: bytes | str = b"",
        timeout: float = 60,
        check: bool = True,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in this house and return what it printed.

        Args:
            argv: program and arguments.
            stdin: what it reads.
            timeout: seconds until the test fails.
            check: raise when the exit code is not 0.
            env: variables on top of the house's.
            cwd: working directory; default: the home.

        Raises:
            CommandFailed: the exit code was not 0, with `check`.
        """
        # files, not pipes: what a container or a supervisor keeps open must not hold this call
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as given:
            given.write(stdin.encode() if isinstance(stdin, str) else stdin)
            given.seek(0)
            with subprocess.Popen(
                argv, stdin=given, stdout=out, stderr=err, env=self.env | (env or {}), cwd=cwd or self.home
            ) as done:
                _wait(done, timeout)
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        result = subprocess.CompletedProcess(argv, done.returncode, *texts)
        if check and result.returncode != 0:
            raise CommandFailed(result)
        return result

    def start_box(
        self, name: str, *allowed: str, network: str | None = None, words: Sequence[str] = (), command: str = PATIENT
    ) -> str:
        """Start a container in the background with a profile of its own, and return its name.

        Args:
            name: the container's, and its profile's.
            allowed: the profile's lines.
            network: the mode; default: that of the configuration.
            words: podman's, before the image.
            command: what its shell runs.
        """
        os.makedirs(self.layout.profiles, exist_ok=True)
        (Path(self.layout.profiles) / f"{name}.txt").write_text("".join(f"{line}\n" for line in allowed))
        mode = [] if network is None else ["--network", network]
        self.terok("run", name, *mode, "--profiles", name, "--", "--detach", *words, self.image, "sh", "-c", command)
        return name

    def podman(self, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """`podman ARGS`; options as for `run`."""
        return self.run(["podman", *args], **options)

    def terok(self, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """`terok ARGS`, the program of this virtual environment; options as for `run`."""
        return self.run([str(self.program), *args], **options)
