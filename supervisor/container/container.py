"""The container as the kernel sees it at createRuntime: its init, its namespaces, its root."""

from __future__ import annotations

import os
import stat

from ..ground import process
from ..ground.errors import TerokError
from ..ground.layout import ANNOTATIONS
from ..ground.pids import Process
from ..ground.quick import loads
from . import selinux

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass

CONFIG_MAX = 16 << 20
_UUID = frozenset("0123456789abcdef-")


class Container:
    """Descriptors that name one container's kernel objects; they stay right when its pid is reused.

    Attributes:
        identity: the id that Podman gave it.
        pid, start_time: of its init, as the host counts; start_time in clock ticks since boot.
        pidfd: becomes readable when the init ends.
        net, mount: descriptors of its network and mount namespaces; `mount` only until the start is through.
        root: absolute path of its root file system, as seen before pivot_root.
        label, file_label: the SELinux labels of its processes and of the files that it may use; "" without SELinux.
        capabilities: names (`CAP_...`) that a process in it can get.
        home: the home directory of its user, as its environment says.
        owner: uid and gid of its user, as this process's user namespace counts them.
        asked: its `terok.*` annotations.
        joined: the path of another process's network namespace that it joins (/proc/PID/ns/net); "" for one of its own.
        foreign: the path of a network namespace that Podman did not make (--network=ns:PATH); "" otherwise.
    """

    def __init__(self, identity: str, pid: int, bundle: str, config: dict[str, object]) -> None:
        """Look at the container whose OCI state has this id, `pid` and `bundle` directory, with its config.json read.

        Raises:
            TerokError: it has ended already, its configuration cannot be read, or it shares the host's network.
        """
        self.identity, self.pid = identity, pid
        try:
            self.pidfd = os.pidfd_open(pid)
            self.start_time = process.start_time(pid)
            self.net = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            self.mount = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise TerokError(f"The container's init (pid {pid}) cannot be looked at: {error.strerror}.") from error
        if same_object(self.net, "/proc/self/ns/net"):
            raise TerokError(
                "The container shares the host's network, where nothing can be enforced.",
                fix="start it without --network=host",
            )
        if same_object(self.mount, "/proc/self/ns/mnt"):
            raise TerokError("The container shares the host's mount namespace, so nothing can be mounted for it alone.")
        root = config.get("root")
        path = root.get("path") if isinstance(root, dict) else None
        if not isinstance(path, str):
            raise TerokError(f"The OCI configuration in {bundle} names no root.path.")
        self.root = os.path.normpath(os.path.join(bundle, path))
        self.label = self.file_label = ""
        if selinux.enabled():
            self.label = _text(config, "process", "selinuxLabel")
            self.file_label = _text(config, "linux", "mountLabel")
        init = config.get("process")
        init = init if isinstance(init, dict) else {}
        self.capabilities = _capabilities(init)
        self.home = _home(init)
        self.owner = _owner(config, init)
        path = _network_path(config)
        self.joined = path if path.startswith("/proc/") else ""
        self.foreign = path if path and not self.joined and not _is_podmans(path) else ""
        self.asked = _annotations(config)

    @property
    def init(self) -> Process:
        """Its init, as the record names it."""
        return Process(self.pid, self.start_time)

    @property
    def network(self) -> process.Namespaces:
        """To run something inside its network namespace."""
        return process.Namespaces(net=self.net)


def _text(config: dict[str, object], part: str, key: str) -> str:
    values = config.get(part)
    value = values.get(key) if isinstance(values, dict) else None
    return value if isinstance(value, str) else ""


def _capabilities(init: dict[str, object]) -> frozenset[str]:
    sets = init.get("capabilities")
    named = [names for names in sets.values() if isinstance(names, list)] if isinstance(sets, dict) else []
    return frozenset(name for names in named for name in names if isinstance(name, str))


def _home(init: dict[str, object]) -> str:
    """HOME, which Podman sets from the image's passwd file; / when it makes no sense."""
    variables = init.get("env")
    for variable in variables if isinstance(variables, list) else []:
        if isinstance(variable, str) and variable.startswith("HOME=/"):
            return os.path.normpath(variable[5:])
    return "/"


def _owner(config: dict[str, object], init: dict[str, object]) -> tuple[int, int]:
    """The user's ids: with --userns the container has mappings of its own onto this process's namespace."""
    user, linux = init.get("user"), config.get("linux")
    user, linux = (user if isinstance(user, dict) else {}), (linux if isinstance(linux, dict) else {})
    uid, gid = user.get("uid", 0), user.get("gid", 0)
    return _mapped(uid, linux.get("uidMappings")), _mapped(gid, linux.get("gidMappings"))


def _mapped(number: object, mappings: object) -> int:
    if not isinstance(number, int):
        return 0
    for mapping in mappings if isinstance(mappings, list) else []:
        first = mapping.get("containerID", 0)
        if first <= number < first + mapping.get("size", 0):
            return int(mapping.get("hostID", 0)) + number - int(first)
    return number


def _network_path(config: dict[str, object]) -> str:
    """Podman writes /proc/PID/ns/net for --network=container:NAME and for a pod, a path of its own otherwise."""
    linux = config.get("linux")
    spaces = linux.get("namespaces") if isinstance(linux, dict) else None
    for space in spaces if isinstance(spaces, list) else []:
        if isinstance(space, dict) and space.get("type") == "network":
            path = space.get("path", "")
            return os.path.normpath(path) if isinstance(path, str) and path else ""
    return ""


def _annotations(config: dict[str, object]) -> dict[str, str]:
    values = config.get("annotations")
    values = values if isinstance(values, dict) else {}
    return {key: values[key] for key in ANNOTATIONS if isinstance(values.get(key), str)}


def _is_podmans(path: str) -> bool:
    """Whether Podman named this namespace: `netns-` and a UUID in a directory `netns`."""
    folder, name = os.path.split(path)
    digits = name.removeprefix("netns-")
    shaped = len(digits) == 36 and digits != name and _UUID.issuperset(digits)
    return shaped and os.path.basename(folder) == "netns"


def same_object(fd: int, path: str) -> bool:
    """True when the namespace behind `fd` is the one at `path` (same device and inode, namespaces(7))."""
    one, other = os.fstat(fd), os.stat(path)
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def read_config(bundle: str) -> dict[str, object]:
    """The container's OCI config.json.

    Raises:
        TerokError: it is missing, larger than 16 MiB, or not a JSON object.
    """
    path = os.path.join(bundle, "config.json")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise TerokError(f"{path} is not a regular file.")
            content = file.read(CONFIG_MAX + 1)
        config = loads(content) if len(content) <= CONFIG_MAX else None
    except (OSError, ValueError, RecursionError) as error:
        raise TerokError(f"The OCI configuration {path} cannot be read: {error}.") from error
    if not isinstance(config, dict):
        raise TerokError(f"The OCI configuration {path} is not a JSON object of reasonable size.")
    return config
