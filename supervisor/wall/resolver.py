"""The container's dnsmasq: how it is started, and one question that shows it works.

It runs in the container's network namespace and Podman's user namespace. It must keep CAP_NET_ADMIN there, or its
writes to the sets of the firewall fail without a word, and the operator's rights, to read its files in the bundle.
"""

from __future__ import annotations

import os
import select
import time
from _socket import socket

from ..ground import kernel, process
from ..ground.errors import TerokError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..container.container import Container
    from ..schema import Shield

_TYPE_A, _CLASS_IN = 1, 1
_FIRST_WAIT, _LONGEST_WAIT = 0.002, 0.1
LOOKS, LOOK_SECONDS = 6, 0.1
"""How often in a row, and how far apart, answers must lie unread before dnsmasq counts as stuck: busy, it reads them
within microseconds."""
STUCK = "it no longer puts addresses into the firewall (answers of the kernel lie unread)"
_NETLINK_NETFILTER, _NETLINK_COLUMNS = b"12", 10
_NETLINK_FILE_MAX = 1 << 20  # the container has its own sockets in the list, and could have very many


def argv(shield: Shield) -> list[str]:
    """The command line of dnsmasq, in the foreground, logging to standard error.

    Where setgroups(2) is denied (a user namespace that maps one uid only, user_namespaces(7)) dnsmasq cannot change
    its group and gives up, except in debug mode, where it does not try.
    """
    assert shield.dnsmasq_conf is not None
    stay = "--no-daemon" if _groups_denied() else "--keep-in-foreground"
    return ["dnsmasq", stay, f"--conf-file={shield.dnsmasq_conf}", "--user=root", "--group=root", "--pid-file="]


def confinement(shield: Shield) -> Callable[[], None]:
    """What dnsmasq's process gives up before it starts: it parses what the container and the internet say.

    It keeps the capabilities to bind port 53, to write to the firewall's sets and to change its group, and can read
    the system's programs and the bundle; it can write nothing and execute nothing else.
    """

    def confine() -> None:
        kernel.keep_capabilities(kernel.CAP_SETGID, kernel.CAP_NET_BIND_SERVICE, kernel.CAP_NET_ADMIN)
        kernel.forbid_new_privileges()
        kernel.landlock(
            read=["/etc", "/dev/urandom", os.path.dirname(shield.ruleset)],
            write=["/dev/null"],
            execute=["/usr", "/lib", "/lib64", "/bin", "/sbin", "/nix/store"],
            bind=True,
        )

    return confine


def launch(shield: Shield, container: Container, log: int) -> process.Launch:
    """Fork dnsmasq; it asks nothing and writes nothing before it is asked, so it may start before the firewall.

    Args:
        log: what its standard error becomes.

    Raises:
        TerokError: it is not installed, or nothing could be forked.
    """
    return process.launch(argv(shield), fds={1: log, 2: log}, namespaces=container.network, prepare=confinement(shield))


def _groups_denied() -> bool:
    try:
        with open("/proc/self/setgroups", "rb") as file:
            return file.read().strip() == b"deny"
    except OSError:
        return False


def query(name: str, identity: int, kind: int = _TYPE_A) -> bytes:
    """A DNS question for the record type `kind` of `name` (RFC 1035 section 4.1)."""
    labels = b"".join(bytes([len(label)]) + label.encode("ascii") for label in name.strip(".").split("."))
    header = identity.to_bytes(2, "big") + b"\x01\x00" + b"\x00\x01" + bytes(6)
    return header + labels + b"\x00" + kind.to_bytes(2, "big") + _CLASS_IN.to_bytes(2, "big")


def unread(pid: int) -> int:
    """Bytes of the kernel's answers about the firewall that the dnsmasq with this pid has not read.

    For a question over TCP, dnsmasq 2.90 forks a child that writes addresses to the firewall through the netlink socket
    that it shares with its parent. When both write at once, each may read the other's answers. Then a listing stays
    half read, the kernel refuses the next one (EBUSY), every later answer is the one to an earlier request, and from
    there on nothing is written any more until dnsmasq starts anew. Meanwhile questions are answered as ever.

    Returns 0 too for a process that is gone or belongs to another user.
    """
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
        with open(f"/proc/{pid}/net/netlink", "rb") as file:
            lines = file.read(_NETLINK_FILE_MAX).splitlines()
    except OSError:
        return 0
    sockets = {_link(f"/proc/{pid}/fd/{number}") for number in descriptors}
    rows = [line.split() for line in lines[1:]]
    netfilter = [row for row in rows if len(row) == _NETLINK_COLUMNS and row[1] == _NETLINK_NETFILTER]
    return sum(int(row[4]) for row in netfilter if f"socket:[{int(row[-1])}]" in sockets)


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""  # closed meanwhile


def stuck(pid: int) -> bool:
    """Whether the dnsmasq with this pid no longer puts addresses into the firewall; takes half a second when it is so.

    The supervisor heals that by itself; this is for those who look from outside.
    """
    for _ in range(LOOKS - 1):
        if not unread(pid):
            return False
        time.sleep(LOOK_SECONDS)
    return unread(pid) > 0


def probe(fd: int, name: str, timeout: float, *, kind: int = _TYPE_A, present: bool = False, server: int = -1) -> None:
    """Ask until dnsmasq answers.

    Args:
        fd: a UDP socket connected to 127.0.0.1:53 in the container's network namespace; it stays open.
        name: what to ask for.
        timeout: seconds for all tries together.
        kind: the record type.
        present: only an answer that holds a record counts; otherwise NXDOMAIN is an answer too.
        server: dnsmasq's pidfd, to notice its end at once; -1: unknown.

    Raises:
        TerokError: no answer came in time, or dnsmasq has ended.
    """
    deadline = time.monotonic() + timeout
    wait, reason = _FIRST_WAIT, "no answer"
    link = socket(fileno=fd)
    try:
        while True:
            identity = int.from_bytes(os.urandom(2), "big")
            try:
                link.send(query(name, identity, kind))
                if _answered(link, identity, min(wait, max(0.0, deadline - time.monotonic())), present=present):
                    return
                reason = "no answer that counts" if present else "no answer"
            except OSError as error:  # connection refused, until dnsmasq has bound its port
                reason = error.strerror or str(error)
                if _gone(server, min(wait, max(0.0, deadline - time.monotonic()))):
                    raise TerokError("The container's dnsmasq has ended.") from error
            if time.monotonic() >= deadline:
                raise TerokError(f"The container's dnsmasq did not answer for {name} within {timeout:g} s: {reason}.")
            wait = min(2 * wait, _LONGEST_WAIT)
    finally:
        link.detach()


def _gone(server: int, wait: float) -> bool:
    """Wait; True as soon as the process behind the pidfd has ended."""
    if server < 0:
        time.sleep(wait)
        return False
    waiting = select.poll()
    waiting.register(server, select.POLLIN)
    return bool(waiting.poll(wait * 1000))


def _answered(link: socket, identity: int, wait: float, *, present: bool) -> bool:
    """True when an answer to the question `identity` comes within `wait` seconds; leaves nothing else in the socket."""
    waiting = select.poll()
    waiting.register(link.fileno(), select.POLLIN)
    until = time.monotonic() + wait
    while waiting.poll(max(0.0, until - time.monotonic()) * 1000):
        answer = link.recv(4096)
        ours = len(answer) >= 12 and answer[:2] == identity.to_bytes(2, "big") and answer[2] & 0x80
        if not ours:
            continue
        answered = answer[3] & 0x0F == 0 and answer[6:8] != b"\x00\x00"
        if answered or not present:
            return True
        time.sleep(max(0.0, until - time.monotonic()))  # a definite no: ask again, but not at once
        return False
    return False
