"""Every path of terok, on the host and in the container. No other module joins one."""

from __future__ import annotations

import os

from .errors import Exit, TerokError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SUN_PATH_MAX = 107
"""Bytes that fit into `sockaddr_un.sun_path` before its NUL (unix(7))."""

NAME_MAX = 128
_NAME_CHARS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")

IN_CONTAINER = "/run/terok"
"""Where a container sees its runtime directory, in every transport."""

ANNOTATION_SIDECAR = "terok.sandbox.sidecar"
ANNOTATION_SCOPE = "terok.scope"
ANNOTATION_PROFILES = "terok.shield.profiles"
ANNOTATION_UDP_PORTS = "terok.shield.udp_ports"
ANNOTATION_STATE_DIR = "terok.shield.state_dir"
ANNOTATION_NETWORK = "terok.network"
ANNOTATION_PUBLISH = "terok.publish"
ANNOTATIONS = (
    ANNOTATION_SIDECAR,
    ANNOTATION_SCOPE,
    ANNOTATION_PROFILES,
    ANNOTATION_UDP_PORTS,
    ANNOTATION_STATE_DIR,
    ANNOTATION_NETWORK,
    ANNOTATION_PUBLISH,
)
"""Every annotation key that has a meaning. A key that only resembles one of these refuses the container's start."""

SOCKETS = {"vault": "vault.sock", "ssh": "ssh-agent.sock", "gate": "gate.sock"}
"""Each service's socket in the runtime directory."""

CA_FILE = "ca.pem"
"""In the runtime directory: the image's bundle of certificates, and the container's own authority."""
AUTHORITY_FILE = "authority.pem"
"""There too: the container's own authority alone."""
JAVA_TRUST_FILE = "java.jks"
CHROMIUM_FILE, FIREFOX_FILE = "chromium.json", "firefox.json"
"""There too: policies of browsers, which look into no bundle of the system's."""

VAULT_PORT = 9419
GATE_PORT = 9418
MCP_PORT = 9417
DNS_PORT = 53
AIRLOCK_PORT = 9440


def is_name(name: str) -> bool:
    """Whether `check_name` accepts it."""
    return 0 < len(name) <= NAME_MAX and name[0].isalnum() and name.isascii() and _NAME_CHARS.issuperset(name)


def check_name(name: str) -> str:
    """Return `name` when it may name a container, a scope or one of terok's directories.

    Podman's own rule ([a-zA-Z0-9][a-zA-Z0-9_.-]*) with a length limit, so `/`, `..` and a leading dot or
    dash never reach a path or an argument list.

    Raises:
        TerokError: the name is empty, too long, or has another character.
    """
    if not is_name(name):
        raise TerokError(
            f"{name[:60]!r} is not a usable name: letters, digits, '_', '.', '-', at most {NAME_MAX}, "
            "beginning with a letter or digit.",
            code=Exit.USAGE,
        )
    return name


def check_socket_path(path: str) -> str:
    """Return `path` when the kernel can bind a Unix socket there.

    Raises:
        TerokError: it is longer than 107 bytes.
    """
    length = len(os.fsencode(path))
    if length > SUN_PATH_MAX:
        raise TerokError(
            f"The socket path {path} has {length} bytes; the kernel takes {SUN_PATH_MAX}.",
            fix=f"shorten the container's name by {length - SUN_PATH_MAX}, or set paths.runtime in config.yml",
            code=Exit.USAGE,
        )
    return path


class _Below:
    """A path below one of its owner's directories, as an attribute that type checkers see as `str`.

    Args:
        base: the owner's attribute that holds the directory.
        parts: what is joined to it.
    """

    def __init__(self, base: str, *parts: str) -> None:
        self._base, self._parts = base, parts

    def __get__(self, owner: object, _kind: type) -> str:
        return os.path.join(getattr(owner, self._base), *self._parts)


class Bundle:
    """The state bundle of one container: everything on disk about it.

    Args:
        root: absolute path of the bundle's directory.
    """

    def __init__(self, root: str) -> None:
        self.root = root

    def __repr__(self) -> str:
        return f"Bundle({self.root!r})"

    def file(self, name: str) -> str:
        """Path of a file in the bundle."""
        return os.path.join(self.root, name)

    @property
    def name(self) -> str:
        """The container's name."""
        return os.path.basename(self.root)

    meta = _Below("root", "meta.json")
    sidecar = _Below("root", "sidecar.json")
    env = _Below("root", "env")
    ruleset = _Below("root", "ruleset.nft")
    expected = _Below("root", "ruleset.json")
    shield = _Below("root", "shield.json")
    seccomp = _Below("root", "seccomp.json")
    shield_lock = _Below("root", "shield.lock")
    dnsmasq_conf = _Below("root", "dnsmasq.conf")
    dnsmasq_servers = _Below("root", "dnsmasq.servers")
    dnsmasq_hosts = _Below("root", "dnsmasq.hosts")
    loopback = _Below("root", "loopback.json")
    airlock = _Below("root", "airlock")
    airlock_policy = _Below("root", "airlock", "policy.json")
    airlock_told = _Below("root", "airlock", "told")
    airlock_pending = _Below("root", "airlock", "asked", "pending.json")
    airlock_decisions = _Below("root", "airlock", "decisions.json")
    hosts = _Below("root", "hosts")
    resolv_conf = _Below("root", "resolv.conf")
    known_hosts = _Below("root", "known_hosts")
    live_allowed = _Below("root", "live.allowed")
    deny_list = _Below("root", "deny.list")
    audit = _Below("root", "audit.jsonl")
    record = _Below("root", "supervisor.json")
    log = _Below("root", "supervisor.log")
    hook_error = _Below("root", "hook-error.log")
    lock = _Below("root", "supervisor.lock")
    heal_lock = _Below("root", "heal.lock")
    once = _Below("root", "once")
    confirm = _Below("root", "confirm")
    tokens = _Below("root", "tokens.json")
    tls_spare = _Below("root", "tls-spare.pem")
    authority = _Below("root", "authority.pem")
    java_trust = _Below("root", "java.jks")
    chromium_policy = _Below("root", "chromium.json")
    home = _Below("root", "home")

    def home_file(self, path: str) -> str:
        """The source of a file that is mounted at `path` below the home of the container's user."""
        return os.path.join(self.root, "home", path)

    def policy_file(self, target: str) -> str:
        """The source of a settings file that is mounted at the absolute path `target`."""
        return os.path.join(self.root, "policy", target.lstrip("/"))


class GateHome:
    """One scope's git gate on disk: the mirror, and beside it what no confined process may write.

    Args:
        root: absolute path of the scope's directory.
    """

    def __init__(self, root: str) -> None:
        self.root = root

    def __repr__(self) -> str:
        return f"GateHome({self.root!r})"

    @classmethod
    def of(cls, gate: str, scope: str) -> GateHome:
        """The scope's directory below the gate directory; raises TerokError for an unusable name."""
        return cls(os.path.join(gate, check_name(scope)))

    @property
    def scope(self) -> str:
        """The scope's name."""
        return os.path.basename(self.root)

    repo = _Below("root", "repo.git")
    objects = _Below("root", "repo.git", "objects")
    packs = _Below("root", "repo.git", "objects", "pack")
    loose_sample = _Below("root", "repo.git", "objects", "17")
    config = _Below("root", "gate.json")
    state = _Below("root", "state.json")
    lock = _Below("root", "lock")
    log = _Below("root", "log.jsonl")
    known_hosts = _Below("root", "known_hosts")

    def incoming(self, container: str) -> str:
        """The only directory that the container's gate may write: packs land there; TerokError for a bad name."""
        return os.path.join(self.root, "incoming", check_name(container))


class Layout:
    """Where everything is for one operator.

    Args:
        data, runtime, config: the three absolute base directories, each already ending in `terok`.
    """

    def __init__(self, data: str, runtime: str, config: str) -> None:
        self.data, self.runtime, self.config = data, runtime, config

    def __repr__(self) -> str:
        return f"Layout(data={self.data!r}, runtime={self.runtime!r}, config={self.config!r})"

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], *, uid: int | None = None) -> Layout:
        """The layout of the calling user; XDG variables move it (XDG Base Directory Specification 0.8).

        Args:
            environ: usually `os.environ`.
            uid: the outer uid; default: the one that `/proc/self/uid_map` gives for this process.

        Raises:
            TerokError: the runtime directory is another user's, as XDG_RUNTIME_DIR after su(1); or the one below /tmp,
                which is used where there is none.
        """
        uid = outer_uid() if uid is None else uid
        home = environ.get("HOME") or "/root"

        def base(variable: str, default: str) -> str:
            value = environ.get(variable, "")
            return value if value.startswith("/") else default

        if uid == 0:
            return cls(
                "/var/lib/terok", "/run/terok", os.path.join(base("XDG_CONFIG_HOME", home + "/.config"), "terok")
            )
        runtime = base("XDG_RUNTIME_DIR", f"/run/user/{uid}")
        if not os.path.isdir(runtime):
            runtime = f"/tmp/terok-runtime-{uid}"
            try:
                os.mkdir(runtime, 0o700)
            except OSError:
                pass  # it is there; or what needs it says why it is not
        if os.path.lexists(runtime):
            _refuse_foreign(runtime)
        return cls(
            os.path.join(base("XDG_DATA_HOME", home + "/.local/share"), "terok"),
            os.path.join(runtime, "terok"),
            os.path.join(base("XDG_CONFIG_HOME", home + "/.config"), "terok"),
        )

    containers = _Below("data", "containers")
    containers_lock = _Below("data", "containers", ".lock")
    hooks = _Below("data", "hooks.d")
    hook_program = _Below("data", "hooks.d", "terok-status-says-why")
    """A link to the interpreter. Of a hook that refuses a start, crun and Podman show the path and nothing else."""
    hook_modules = _Below("data", "hooks.d", "modules")
    """All modules of the hook in one file, compiled; `hookbin/entry.py` has this path too, before it has any module."""
    presence = _Below("data", "hooks.d", "present")
    """An empty directory that exists as long as the hooks do; containers mount it, so that they start only with it."""
    hook_error = _Below("data", "hook-error.log")
    vault = _Below("data", "vault")
    vault_db = _Below("data", "vault", "vault.db")
    vault_key = _Below("data", "vault", "key")
    vault_routes = _Below("data", "vault", "routes.json")
    vault_gates = _Below("data", "vault", "gates.json")
    vault_refresh = _Below("data", "vault", "refresh")
    vault_audit = _Below("data", "vault", "audit.jsonl")
    vault_usage = _Below("data", "vault", "usage.db")
    gate = _Below("data", "gate")
    mcp = _Below("data", "mcp")
    trust = _Below("data", "trust")
    unlocked_key = _Below("runtime", ".vault", "key")
    config_file = _Below("config", "config.yml")
    profiles = _Below("config", "shield", "profiles")
    roster = _Below("config", "roster.d")

    agents = _Below("data", "agents")
    logins = _Below("runtime", ".auth")

    def trust_file(self, directory: str) -> str:
        """What the operator trusts in a project, whose directory is absolute and without links."""
        return self._of_directory(directory, ".json")

    def connection_file(self, directory: str) -> str:
        """Which scopes the operator has let a project use; the directory as in `trust_file`."""
        return self._of_directory(directory, ".scopes")

    def _of_directory(self, directory: str, suffix: str) -> str:
        from hashlib import sha256  # 5 ms that hooks and the supervisor do not need

        return os.path.join(self.trust, sha256(os.fsencode(directory)).hexdigest() + suffix)

    def hook(self, stage: str) -> str:
        """The OCI hook descriptor of one stage."""
        return os.path.join(self.hooks, f"terok-{stage}.json")

    def login_home(self, token: str) -> str:
        """The home directory of one login container."""
        return os.path.join(self.logins, token)

    def agent(self, scope: str) -> Bundle:
        """The state of `terok ssh agent` for one scope, in the form of a bundle; TerokError for an unusable name."""
        return Bundle(os.path.join(self.data, "agents", check_name(scope)))

    def agent_runtime(self, scope: str) -> str:
        """The directory of that agent's sockets; TerokError for an unusable name."""
        return os.path.join(self.runtime, ".agent", check_name(scope))

    def agent_socket(self, scope: str, pid: int) -> str:
        """The socket that one `terok ssh agent` listens at; TerokError for an unusable name or too long a path."""
        return check_socket_path(os.path.join(self.agent_runtime(scope), f"{pid}.sock"))

    @property
    def project_schema(self) -> str:
        """The JSON Schema of project files, for editors, where the wheel did not install it."""
        return os.path.join(self.data, "project.schema.json")

    def bundle(self, container: str) -> Bundle:
        """The state bundle of `container`; raises TerokError for an unusable name."""
        return Bundle(os.path.join(self.containers, check_name(container)))

    def gate_home(self, scope: str) -> GateHome:
        """Where the scope's mirror is; raises TerokError for an unusable name."""
        return GateHome.of(self.gate, scope)

    def mcp_servers(self, scope: str) -> str:
        """The directory of a scope's MCP servers; raises TerokError for an unusable name."""
        return os.path.join(self.mcp, check_name(scope))

    def runtime_dir(self, container: str) -> str:
        """Host directory that the container sees as /run/terok; raises TerokError for an unusable name."""
        return os.path.join(self.runtime, check_name(container))


def outer_uid(uid_map: str = "/proc/self/uid_map") -> int:
    """The uid that this process's euid has on the host (user_namespaces(7)); 0 means real root.

    Inside Podman's user namespace `geteuid()` is 0 for everybody: the first line of the map tells who it is.
    """
    euid = os.geteuid()
    with open(uid_map, encoding="ascii") as lines:
        for line in lines:
            inside, outside, count = (int(field) for field in line.split())
            if inside <= euid < inside + count:
                return outside + euid - inside
    return euid


DROPIN = "99-terok.conf"
"""The last file that sets hooks_dir wins (containers.conf(5)), and Podman 6 sorts the files of all folders by name."""
OLD_DROPIN = "50-terok.conf"
"""The name that earlier versions used."""


def _refuse_foreign(path: str) -> None:
    """Who owns the directory, or a link in its place, can put other sockets and keys in the place of those in it."""
    for look in (os.lstat, os.stat):
        info = look(path)
        if info.st_uid != os.geteuid() or not os.path.isdir(path):
            raise TerokError(
                f"The runtime directory {path} belongs to another user.",
                fix="export XDG_RUNTIME_DIR=/run/user/$(id -u), or a directory of yours with mode 0700",
            )


def containers_conf_dropin(environ: Mapping[str, str], *, uid: int | None = None, name: str = DROPIN) -> str:
    """The containers.conf drop-in that announces the hooks (containers.conf(5)): per user, or /etc for root."""
    uid = outer_uid() if uid is None else uid
    if uid == 0:
        return f"/etc/containers/containers.conf.d/{name}"
    config = environ.get("XDG_CONFIG_HOME", "")
    base = config if config.startswith("/") else os.path.join(environ.get("HOME") or "/root", ".config")
    return os.path.join(base, "containers", "containers.conf.d", name)


def socket_path(runtime_dir: str, service: str) -> str:
    """A service's Unix socket in a container's runtime directory."""
    return os.path.join(runtime_dir, SOCKETS[service])


def handover_socket(runtime_dir: str) -> str:
    """Where a container's relay hands connections to its vault: beside the runtime directory, which containers see."""
    return os.path.join(os.path.dirname(runtime_dir), ".handover", os.path.basename(runtime_dir))


def container_env(runtime_dir: str) -> str:
    """The environment of a container that has only annotations, which it reads itself."""
    return os.path.join(runtime_dir, "env")


def program(*parts: str) -> str:
    """A program of the package, by its path below `package_root`."""
    return os.path.join(package_root(), *parts)


def package_root() -> str:
    """The directory that holds the floors (`supervisor/`, `sidecars/`, ...), as this process found them."""
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def policy_installer() -> str:
    """The script that adds the SELinux policy module; an administrator runs it once, where it is needed at all."""
    return program("selinux", "install_policy.sh")


def policy_source() -> str:
    """The source of that module."""
    return program("selinux", "terok_socket.te")


def bridges() -> str:
    """Scripts for images that prefer an environment file to set variables."""
    return program("runtime", "bridges")


def dnsmasq_profiles() -> tuple[tuple[str, str], ...]:
    """(profile, its local addition): where distributions keep AppArmor's rules for dnsmasq, the likeliest first."""
    base = "/etc/apparmor.d"
    return tuple((f"{base}/{name}", f"{base}/local/{name}") for name in ("usr.sbin.dnsmasq", "dnsmasq"))
