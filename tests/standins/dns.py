"""A stand-in DNS server: a real dnsmasq that knows only the names it is given and asks nobody."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from tests.lab.house import DNS_ADDRESS
from tests.standins.flipping import Flipping


def answers(address: str, port: int, *, timeout: float) -> bool:
    """Whether a DNS server answers a query for the root's name servers within `timeout` seconds."""
    query = b"\x12\x34\x01\x00\x00\x01" + bytes(6) + b"\x00" + b"\x00\x02\x00\x01"  # RFC 1035, 4.1
    deadline = time.monotonic() + timeout
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.connect((address, port))
        while (left := deadline - time.monotonic()) > 0:
            client.settimeout(min(left, 0.05))
            try:
                client.send(query)
                return client.recv(512)[:2] == b"\x12\x34"
            except (ConnectionRefusedError, TimeoutError):
                time.sleep(0.005)  # it has not bound yet: refused at once, so no event to wait for
    return False


def _options(name: str, addresses: Sequence[str]) -> list[str]:
    """dnsmasq's options for one name: a host record has at most one address of each family."""
    if not addresses:
        return [f"--txt-record={name},no address"]
    if len({":" in address for address in addresses}) == len(addresses):
        return [f"--host-record={','.join([name, *addresses])}"]
    return [f"--address=/{name}/{address}" for address in addresses]


class Resolver:
    """A DNS server on `address`, port 53 unless given, from entering the context until leaving it.

    Args:
        records: name → its addresses; without any the name has a text alone; every other name is NXDOMAIN.
        address: where it listens; the default is what /etc/resolv.conf names in the lab.
        port: its port.
        forward: names whose questions go to another stand-in on loopback.
    """

    def __init__(
        self,
        records: Mapping[str, Sequence[str]],
        *,
        address: str = DNS_ADDRESS,
        port: int = 53,
        forward: Mapping[str, Flipping] | None = None,
    ) -> None:
        self.records, self.address, self.port = records, address, port
        self.forward = dict(forward or {})
        self._log = tempfile.TemporaryFile()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Resolver:
        argv = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file="]
        argv += ["--user=", "--bind-interfaces", f"--listen-address={self.address}", f"--port={self.port}"]
        argv += ["--log-facility=-", "--log-queries", "--local-ttl=60", "--address=/#/"]
        argv += [f"--server=/{name}/127.0.0.1#{other.port}" for name, other in self.forward.items()]
        argv += [option for name, addresses in self.records.items() for option in _options(name, addresses)]
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        if not answers(self.address, self.port, timeout=5):
            said = self.log()
            self.__exit__(None, None, None)
            raise AssertionError(f"dnsmasq does not answer on {self.address}:\n{said}")
        return self

    def log(self) -> str:
        """Everything it said so far, each query among it."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def asked(self, name: str) -> bool:
        """Whether anybody asked for `name`."""
        return f" {name} from " in self.log()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._log.close()
