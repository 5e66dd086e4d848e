"""The `SELinux:` block of `terok setup`: which of the three ways to the sockets this host uses, and what is missing.

Everything is asked of the kernel through selinuxfs, as any user may: `semodule -l` needs root. The kernel answers for
the very labels that the supervisor and a container will have, so no list of distributions is needed:

1. own labels: the supervisor gives each socket the label of its container. Needs nothing.
2. policy module: `terok_socket_t`, when an administrator has installed it and the first way is refused.
3. `services.mode: tcp`: no sockets.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ...supervisor.container.selinux import FS, SOCKET_LABEL, SOCKET_TYPE, current, enabled, known
from ...supervisor.ground import paste, process
from ...supervisor.ground.layout import policy_installer, policy_source

if TYPE_CHECKING:
    from ..kit.check import Check
    from ..kit.env import Env, Output

OK, WARN = "ok", "WARN"
OWN, POLICY, TCP, NONE, FREE, UNKNOWN = "own labels", "policy module", "tcp", "none", "not confined", "unknown"
"""Ways to the sockets. NONE: containers can't connect; FREE: SELinux does not confine containers on this host;
UNKNOWN: the kernel does not answer this login's questions about its policy."""
MISSING, CURRENT, OTHER = "missing", "current", "other"
"""What the loaded policy has of terok: nothing, the module of this version, or one of another version."""

SERVED = ("create", "bind", "listen", "accept", "read", "write", "getattr", "getopt", "setopt", "shutdown")
"""What the supervisor and a sidecar do with a socket (class unix_stream_socket)."""
REMOVAL = "sudo semodule -r terok_socket"
_LXC_CONTEXTS = "/etc/selinux/{type}/contexts/lxc_contexts"


@dataclass(frozen=True)
class Facts:
    """What the kernel says about this host.

    own: the supervisor may create sockets with a container's label, and that container may connect to them;
        None when the kernel does not tell.
    served: the same for the policy module's type.
    module: `MISSING`, `CURRENT` or `OTHER`.
    confined: containers have labels under this policy.
    mode: `services.mode` of the configuration.
    """

    own: bool | None
    served: bool | None
    module: str
    confined: bool
    mode: str


@dataclass(frozen=True)
class Line:
    """One line of the block: `what  state (detail)`, and lines of advice below it."""

    what: str
    state: str
    detail: str
    advice: tuple[str, ...] = ()
    fixes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Block:
    """The block of the report.

    way: how containers reach the sockets here, one of the words above.
    lines: what is printed.
    """

    way: str
    rows: tuple[Line, ...]

    @property
    def state(self) -> str:
        """`OK`, or `WARN` when a line has it."""
        return WARN if any(row.state == WARN for row in self.rows) else OK

    def lines(self, out: Output) -> list[str]:
        """The block for people."""
        width = max(len(row.what) for row in self.rows)
        indent = " " * (width + 5)
        text = ["SELinux:"]
        for row in self.rows:
            state = out.paint(row.state, "good" if row.state == OK else "warning")
            text.append(f"  {row.what:<{width}}   {state} ({row.detail})")
            text += [indent + line for line in row.advice]
            if row.fixes:
                text.append(f"{indent}Fix{' (pick one)' if len(row.fixes) > 1 else ''}:")
                label_width = max(len(label) for label, _ in row.fixes) + 1
                text += [f"{indent}  {label + ':':<{label_width}} {command}" for label, command in row.fixes]
        return text

    def checks(self) -> list[Check]:
        """The same as the report's other checks have it, one fix line each."""
        from ..kit.check import Check

        return [
            Check(
                "SELinux",
                row.what,
                row.state,
                " ".join([row.detail, *row.advice]),
                "; ".join(f"{label}: {command}" for label, command in row.fixes),
            )
            for row in self.rows
        ]

    def to_dict(self) -> dict[str, object]:
        """As plain data for JSON."""
        return {"way": self.way, "state": self.state, "lines": [asdict(row) for row in self.rows]}


def block(env: Env) -> Block | None:
    """The block for this host; None (print nothing) without SELinux and where it is permissive."""
    if not enforcing():
        return None
    return decide(look(env.config.services.mode), config_file=_short(env.layout.config_file, env.environ.get("HOME")))


def removal(fs: str = FS) -> str | None:
    """The administrator's command that takes terok's module out of the policy; None when it is not in there."""
    return REMOVAL if enabled(fs) and known(SOCKET_LABEL, fs) else None


# --- the decision ----------------------------------------------------------------------------------------


def decide(facts: Facts, *, config_file: str, installer: str = "") -> Block:
    """What to print, from the facts alone.

    Args:
        facts: see `Facts`.
        config_file: where `services.mode` is set, as people write it.
        installer: path of install_policy.sh; default: the one of this installation.
    """
    installer = installer or policy_installer()
    way = _way(facts)
    install = ("install policy", f"sudo bash {paste.quoted(installer)}")
    opt_out = ("or opt out", f"add `services: {{mode: tcp}}` to {config_file}")
    rows = [] if way == NONE else [_WAYS[way]]
    if facts.module == OTHER and facts.mode != "tcp":
        update = ("update policy", f"sudo bash {paste.quoted(installer)}")
        rows.append(
            Line(SOCKET_TYPE, WARN, "policy of another version installed", fixes=(update, ("or remove it", REMOVAL)))
        )
    elif facts.module == CURRENT:
        # installed, and yet the sockets are out of reach: this login is in none of the module's domains
        works = way != NONE
        advice = () if works else ("It does not cover the domain of this login.",)
        rows.append(Line(SOCKET_TYPE, OK if works else WARN, "policy installed", advice, () if works else (opt_out,)))
    elif way == NONE:
        rows.append(
            Line(
                SOCKET_TYPE,
                WARN,
                "policy NOT installed",
                ("Containers cannot connect to service sockets.",),
                (install, opt_out),
            )
        )
    elif way == UNKNOWN:
        rows.append(Line(SOCKET_TYPE, OK, "policy not installed", fixes=(install, opt_out)))
    elif way == OWN:
        rows.append(Line(SOCKET_TYPE, OK, "policy not installed, not needed"))
    return Block(way, tuple(rows))


_WAYS = {
    OWN: Line("sockets", OK, "own labels: each container reaches its own sockets and no other's"),
    POLICY: Line("sockets", OK, f"policy module: labelled {SOCKET_TYPE}"),
    TCP: Line("sockets", OK, "not needed: services.mode is tcp"),
    FREE: Line("sockets", OK, "this policy does not confine containers"),
    UNKNOWN: Line("sockets", WARN, "this login may not ask the kernel; the first start will tell"),
}


def _way(facts: Facts) -> str:
    if facts.mode == "tcp":
        return TCP
    if not facts.confined:
        return FREE
    if facts.own:
        return OWN
    if facts.module != MISSING and facts.served:
        return POLICY
    return UNKNOWN if facts.own is None else NONE


# --- the kernel ------------------------------------------------------------------------------------------


def enforcing(fs: str = FS) -> bool:
    """True when SELinux enforces its policy (selinuxfs, `enforce`)."""
    try:
        with open(f"{fs}/enforce", encoding="ascii") as file:
            return file.read(1) == "1"
    except OSError:
        return False


def look(mode: str, fs: str = FS) -> Facts:
    """Ask the kernel about this host; `mode` is the configuration's `services.mode`."""
    module = MISSING
    if known(SOCKET_LABEL, fs):
        module = CURRENT if known(f"system_u:object_r:{marker()}:s0", fs) else OTHER
    container = container_label(fs)
    if container is None:
        return Facts(None, None, module, confined=False, mode=mode)
    host = hook_label(fs)
    return Facts(
        own=_reachable(host, container, container, fs),
        served=_reachable(host, SOCKET_LABEL, container, fs) if module != MISSING else None,
        module=module,
        confined=True,
        mode=mode,
    )


def marker(path: str = "") -> str:
    """The alias in terok_socket.te that names its version in a loaded policy."""
    with open(path or policy_source(), encoding="utf-8") as file:
        match = re.search(r"^typealias \w+ alias (\w+);", file.read(), re.MULTILINE)
    assert match is not None, "terok_socket.te names its version"
    return match.group(1)


def container_label(fs: str = FS) -> str | None:
    """A label as Podman gives containers, with two categories; None when the policy has none for them."""
    try:
        with open("/etc/selinux/config", encoding="utf-8") as file:
            kind = re.search(r"^SELINUXTYPE=(\S+)", file.read(), re.MULTILINE)
        with open(_LXC_CONTEXTS.format(type=kind.group(1) if kind else "targeted"), encoding="utf-8") as file:
            match = re.search(r'^process\s*=\s*"([^"]+)"', file.read(), re.MULTILINE)
    except OSError:
        return None
    if match is None:
        return None
    label = match.group(1)
    with_categories = f"{label}:c1,c2" if label.endswith(":s0") else label
    return next((candidate for candidate in (with_categories, label) if known(candidate, fs)), None)


def hook_label(fs: str = FS) -> str:
    """The label that a hook will run under when this login starts a container: podman's, then the runtime's domain."""
    label = current()
    for name in ("podman", "crun"):
        path = process.find(name)
        try:
            file_label = os.getxattr(path, "security.selinux").rstrip(b"\0").decode() if path else ""
        except OSError:
            continue
        if file_label:
            label = _ask("create", f"{label} {file_label} {_index('process', fs)}", fs) or label
    return label


def _reachable(host: str, socket: str, container: str, fs: str) -> bool | None:
    """Whether `host` may serve sockets labelled `socket`, and `container` may connect to them; None: not told."""
    answers = (
        allowed(host, host, "process", ("setsockcreate",), fs),
        allowed(host, socket, "unix_stream_socket", SERVED, fs),
        allowed(container, socket, "unix_stream_socket", ("connectto",), fs),
    )
    return None if None in answers else all(answers)


def allowed(source: str, target: str, kind: str, permissions: Sequence[str], fs: str = FS) -> bool | None:
    """Whether the policy, its constraints among it, allows all the permissions; None when the kernel does not tell."""
    try:
        wanted = [1 << int(_read(f"{fs}/class/{kind}/perms/{permission}")) - 1 for permission in permissions]
        answer = _ask("access", f"{source} {target} {_index(kind, fs)}", fs)
    except OSError:
        return None
    granted = int(answer.split()[0], 16) if answer else None
    return None if granted is None else all(granted & bit for bit in wanted)


def _index(kind: str, fs: str) -> str:
    return _read(f"{fs}/class/{kind}/index")


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def _ask(name: str, question: str, fs: str) -> str | None:
    """One question and its answer, over one descriptor, as selinuxfs wants it."""
    try:
        fd = os.open(f"{fs}/{name}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        os.write(fd, question.encode())
        return os.read(fd, 4096).rstrip(b"\0").decode()
    except OSError:
        return None
    finally:
        os.close(fd)


def _short(path: str, home: str | None) -> str:
    return f"~{path[len(home) :]}" if home and path.startswith(home.rstrip("/") + "/") else path
