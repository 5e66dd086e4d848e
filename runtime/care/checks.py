"""What the host must have: one check each, with the command that helps. Used by setup and doctor."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from ...supervisor.ground import kernel, paste, pids, process
from ...supervisor.ground.errors import TerokError
from ...supervisor.ground.layout import SUN_PATH_MAX, outer_uid, socket_path
from ..host import apparmor, hooks, podman
from ..kit.check import FAIL, OK, WARN, Check
from ..kit.env import Env, Output
from ..launch.resources import all_ports, is_free
from . import landlock


def install_hint(debian: str, fedora: str | None = None, *, os_release: str = "/etc/os-release") -> str:
    """The command that installs a package here."""
    try:
        with open(os_release, encoding="utf-8") as file:
            text = file.read()
    except OSError:
        text = ""
    family = " ".join(
        line.partition("=")[2].strip('"') for line in text.splitlines() if line.startswith(("ID=", "ID_LIKE="))
    )
    words = family.split()
    if {"fedora", "rhel", "centos"} & set(words):
        return f"sudo dnf install {fedora or debian}"
    if "arch" in words:
        return f"sudo pacman -S {fedora or debian}"
    if "alpine" in words:
        return f"sudo apk add {fedora or debian}"
    return f"sudo apt-get install {debian}"


def _podman(env: Env) -> Iterator[Check]:
    try:
        version = podman.version(env.environ)
    except TerokError as error:
        yield Check("podman", "podman", FAIL, error.what, install_hint("podman"))
        return
    text = ".".join(map(str, version))
    if version < podman.OLDEST:
        oldest = ".".join(map(str, podman.OLDEST))
        yield Check("podman", "podman", FAIL, f"{text} is older than {oldest}", install_hint("podman"))
    else:
        yield Check("podman", "podman", OK, text)
    yield _runtime(env)
    yield from _network(env, version)


def _runtime(env: Env) -> Check:
    for name in ("crun", "runc"):
        path = podman.which(name, env.environ)
        if path:
            result = process.run([path, "--version"], timeout=10, env=env.environ)
            if result.code:
                return Check("podman", "OCI runtime", WARN, f"`{name} --version` failed: {result.error}")
            version = ".".join(map(str, podman.parse_version(result.out.decode(errors="replace"))))
            return Check("podman", "OCI runtime", OK, f"{name} {version}")
    return Check("podman", "OCI runtime", FAIL, "neither crun nor runc is installed", install_hint("crun"))


def _network(env: Env, version: tuple[int, ...]) -> Iterator[Check]:
    rootless = outer_uid() != 0
    try:
        plan = podman.plan_network(
            env.config.network.mode,
            rootless=rootless,
            podman=version,
            programs=podman.network_programs(env.environ),
            forwarder=env.config.shield.forwarder,
        )
    except TerokError as error:
        yield Check("podman", "network", FAIL, error.what, install_hint("slirp4netns" if version < (5,) else "passt"))
        return
    yield Check("podman", "network", OK, plan.mode)


def _subids(env: Env) -> Iterator[Check]:
    uid = outer_uid()
    if uid == 0:
        return
    name = _user_name(uid)
    for path in ("/etc/subuid", "/etc/subgid"):
        size = _range_size(path, name, uid)
        if size >= 65536:
            yield Check("podman", os.path.basename(path), OK, f"{size} ids")
            continue
        kind = "subuids" if path.endswith("uid") else "subgids"
        fix = f"sudo usermod --add-{kind} 100000-165535 {paste.quoted(name)} && podman system migrate"
        state = FAIL if size == 0 else WARN
        yield Check("podman", os.path.basename(path), state, f"{size} ids for {name}; images use up to 65536", fix)
    for program in ("newuidmap", "newgidmap"):
        if podman.which(program, env.environ) is None:
            yield Check("podman", program, FAIL, "is not installed", install_hint("uidmap", "shadow-utils"))


def _user_name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _range_size(path: str, name: str, uid: int) -> int:
    """How many ids a user may map, from subuid(5): NAME or UID, first id, count."""
    total = 0
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                fields = line.strip().split(":")
                if len(fields) == 3 and fields[0] in (name, str(uid)) and fields[2].isdigit():
                    total += int(fields[2])
    except OSError:
        pass
    return total


def _hooks(env: Env) -> Iterator[Check]:
    problem = hooks.problem(env.layout, env.environ)
    if problem:
        yield Check("hooks", "hooks", FAIL, problem, hooks.how_to_fix(env.layout, env.environ))
    else:
        yield Check("hooks", "hooks", OK, f"announced: {env.layout.hooks}")


def _paths(env: Env) -> Iterator[Check]:
    room = SUN_PATH_MAX - len(os.fsencode(socket_path(env.layout.runtime + os.sep, "ssh")))
    if room < 1:
        detail = f"{env.layout.runtime} leaves no room for a container's name in a socket path"
        yield Check("hooks", "socket paths", FAIL, detail, "terok config set paths.runtime /run/user/$(id -u)/terok")
    elif room < 24:
        detail = f"{env.layout.runtime} leaves {room} bytes for a container's name"
        yield Check("hooks", "socket paths", WARN, detail, "terok config set paths.runtime /run/user/$(id -u)/terok")
    else:
        yield Check("hooks", "socket paths", OK, f"names up to {min(room, 128)} characters")


def _ports(env: Env) -> Iterator[Check]:
    """In tcp mode: whether other programs listen in the range that is set aside for us."""
    wanted = env.config.network.port_range
    if env.config.services.mode != "tcp" or wanted is None:
        return
    ours = {port for ports in all_ports(env.config).values() for port in ports}
    taken = [port for port in range(wanted[0], wanted[1] + 1) if port not in ours and not is_free(port)]
    if not taken:
        yield Check("hooks", "ports", OK, f"{wanted[0]} to {wanted[1]} are free")
        return
    detail = ", ".join(f"{port}: {pids.port_owner(port) or 'an unknown process'}" for port in taken[:5])
    left = wanted[1] - wanted[0] + 1 - len(taken) - len(ours)
    state = WARN if left >= 3 else FAIL
    yield Check("hooks", "ports", state, f"{detail}; {left} are free", "terok config set network.port_range null")


def _shield(env: Env) -> Iterator[Check]:
    nft = process.find("nft")
    if nft is None:
        yield Check("shield", "nft", FAIL, "is not installed", install_hint("nftables"))
    else:
        result = process.run([nft, "--version"], timeout=10)
        text = ".".join(map(str, podman.parse_version(result.out.decode(errors="replace"))))
        yield Check("shield", "nft", OK, text)
    yield _dnsmasq()
    confined = apparmor.check(env)
    if confined:
        yield confined


def _dnsmasq() -> Check:
    path = process.find("dnsmasq")
    fallback = "allowed names are resolved once, at the start"
    if path is None:
        return Check(
            "shield", "dnsmasq", WARN, f"is not installed: {fallback}", install_hint("dnsmasq-base", "dnsmasq")
        )
    result = process.run([path, "--version"], timeout=10)
    text = result.out.decode(errors="replace")
    version = ".".join(map(str, podman.parse_version(text)))
    options = text.partition("Compile time options:")[2].splitlines()[:1]
    if options and "nftset" in options[0].split():
        return Check("shield", "dnsmasq", OK, f"{version} with nftset")
    return Check("shield", "dnsmasq", WARN, f"{version} was built without nftset: {fallback}", "")


def _kernel(env: Env) -> Iterator[Check]:
    yield landlock.check(kernel.landlock_abi())


CHECKS: tuple[Callable[[Env], Iterator[Check]], ...] = (_podman, _subids, _paths, _hooks, _ports, _shield, _kernel)


def run_all(env: Env) -> list[Check]:
    """Every check, in the order of the report."""
    return [result for check in CHECKS for result in check(env)]


def render(results: list[Check], out: Output) -> list[str]:
    """The report for people: one block a subsystem, a line a check, the fix below what needs one."""
    colours = {OK: "good", WARN: "warning", FAIL: "bad"}
    lines: list[str] = []
    width = max((len(result.what) for result in results), default=0)
    for subsystem in dict.fromkeys(result.subsystem for result in results):
        lines.append(f"{subsystem}:")
        for result in results:
            if result.subsystem != subsystem:
                continue
            lines.append(
                f"  {result.what:<{width}}  {out.paint(result.state, colours[result.state])} ({result.detail})"
            )
            if result.fix and result.state != OK:
                lines.append(f"  {'':<{width}}  fix: {result.fix}")
    return lines


def summary(results: list[Check]) -> dict[str, object]:
    """How many checks ended in each state."""
    return {state: sum(result.state == state for result in results) for state in (OK, WARN, FAIL)}
