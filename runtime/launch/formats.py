"""The wiring of a container as a Compose service, a Quadlet unit or a `devcontainer.json`.

Each is written out of the same flags that `podman run` gets.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from ...supervisor.ground.errors import Exit, TerokError
from ..host.flags import Flag, Words, is_on

IMAGE = "IMAGE"
"""Stands where the image goes when none was given."""

WORKSPACE = "/workspace"
"""Where a dev container shows the project, unless `--workdir` names another directory."""


def compose(words: Words) -> str:
    """A Compose file with one service (Compose Specification; `x-podman` is podman-compose's).

    Args:
        words: podman's flags, and the image with its command if there is one.

    Raises:
        TerokError: a flag has no counterpart in a Compose file.
    """
    service: dict[str, object] = {"image": words.rest[0] if words.rest else IMAGE}
    if words.rest[1:]:
        service["command"] = words.rest[1:]
    for flag in words.flags:
        if flag.name in _COMPOSE:
            _COMPOSE[flag.name](service, flag.value)
        elif flag.name not in _COMPOSE_NEEDLESS:
            raise TerokError(
                f"podman's {flag.written} has no equivalent in a Compose file that terok writes.",
                fix=f"remove it here and add it to the service {service.get('container_name', '')} yourself",
                code=Exit.USAGE,
            )
    name = service.get("container_name", "service")
    # JSON's strings, lists and maps are YAML's
    lines = [
        "# In a pod the network would belong to another container, where nothing can be enforced.",
        "x-podman: {in_pod: false}",
        "services:",
        f"  {name}:",
    ]
    for key, value in service.items():
        if isinstance(value, dict):
            lines.append(f"    {key}:")
            lines += [f"      {json.dumps(name)}: {_scalar(item)}" for name, item in value.items()]
        elif isinstance(value, list):
            lines.append(f"    {key}:")
            lines += [f"      - {_scalar(item)}" for item in value]
        else:
            lines.append(f"    {key}: {_scalar(value)}")
    return "\n".join(lines) + "\n"


def _scalar(value: object) -> str:
    # $ begins an interpolation in Compose files
    return json.dumps(value.replace("$", "$$") if isinstance(value, str) else value)


def _into(key: str) -> Callable[[dict[str, object], str], None]:
    def put(service: dict[str, object], value: str) -> None:
        service[key] = value

    return put


def _append(key: str) -> Callable[[dict[str, object], str], None]:
    def put(service: dict[str, object], value: str) -> None:
        values = service.setdefault(key, [])
        assert isinstance(values, list)
        values.append(value)

    return put


def _pair(key: str) -> Callable[[dict[str, object], str], None]:
    def put(service: dict[str, object], value: str) -> None:
        name, _, content = value.partition("=")
        pairs = service.setdefault(key, {})
        assert isinstance(pairs, dict)
        pairs[name] = content

    return put


def _switch(key: str) -> Callable[[dict[str, object], str], None]:
    def put(service: dict[str, object], value: str) -> None:
        service[key] = is_on(value)

    return put


_COMPOSE: dict[str, Callable[[dict[str, object], str], None]] = {
    "name": _into("container_name"),
    "annotation": _pair("annotations"),
    "network": _into("network_mode"),
    "add-host": _append("extra_hosts"),
    "env-file": _append("env_file"),
    "env": _append("environment"),
    "cap-drop": _append("cap_drop"),
    "cap-add": _append("cap_add"),
    "security-opt": _append("security_opt"),
    "pids-limit": lambda service, value: service.update(pids_limit=int(value)),
    "memory": _into("mem_limit"),
    "read-only": _switch("read_only"),
    "init": _switch("init"),
    "tty": _switch("tty"),
    "interactive": _switch("stdin_open"),
    "publish": _append("ports"),
    "volume": _append("volumes"),
    "tmpfs": _append("tmpfs"),
    "user": _into("user"),
    "workdir": _into("working_dir"),
    "hostname": _into("hostname"),
    "label": _append("labels"),
    "entrypoint": _into("entrypoint"),
    "restart": _into("restart"),
}
_COMPOSE_NEEDLESS = frozenset({"detach", "rm", "http-proxy"})
"""Flags that Compose decides itself."""


def quadlet(words: Words) -> str:
    """A Quadlet `.container` unit (podman-systemd.unit(5)).

    Args:
        words: podman's flags, and the image with its command if there is one. A flag without a key of its own goes
            into `PodmanArgs=`.
    """
    lines = ["[Unit]", f"Description=Container {_name(words)}, wired by terok", "", "[Container]"]
    lines.append(f"Image={_unit(words.rest[0] if words.rest else IMAGE, exec_line=False)}")
    rest: list[str] = []
    for flag in words.flags:
        key = _QUADLET.get(flag.name)
        if key is not None:
            lines.append(f"{key}={_unit(flag.value, exec_line=False)}")
        elif flag.name == "security-opt" and flag.value == "no-new-privileges":
            lines.append("NoNewPrivileges=true")
        elif flag.name not in ("detach", "rm"):
            rest.append(_unit(_joined(flag), exec_line=False))
    if rest:
        lines.append(f"PodmanArgs={' '.join(rest)}")
    if words.rest[1:]:
        lines.append(f"Exec={' '.join(_unit(word, exec_line=True) for word in words.rest[1:])}")
    return "\n".join([*lines, "", "[Install]", "WantedBy=default.target"]) + "\n"


def _name(words: Words) -> str:
    return next((flag.value for flag in words.flags if flag.name == "name"), "")


def _joined(flag: Flag) -> str:
    return f"--{flag.name}={flag.value}"


def _unit(word: str, *, exec_line: bool) -> str:
    """One word in a unit file (systemd.syntax(7)): quoted, `%` doubled, and `$` too where the line is executed."""
    word = word.replace("%", "%%")
    if exec_line:
        word = word.replace("$", "$$")
    if word and not any(letter.isspace() or letter in "\"'\\;" for letter in word):
        return word
    escaped = "".join(_ESCAPES.get(letter, letter) for letter in word)
    return f'"{escaped}"'


_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}

_QUADLET = {
    "name": "ContainerName",
    "annotation": "Annotation",
    "network": "Network",
    "env-file": "EnvironmentFile",
    "env": "Environment",
    "cap-drop": "DropCapability",
    "cap-add": "AddCapability",
    "read-only": "ReadOnly",
    "volume": "Volume",
    "tmpfs": "Tmpfs",
    "publish": "PublishPort",
    "user": "User",
    "label": "Label",
}
"""Keys that Quadlet has since Podman 4.4."""


def devcontainer(words: Words, *, rootless: bool) -> str:
    """A `devcontainer.json` (containers.dev, "Dev Container metadata reference") that starts this container.

    The project is mounted, and its `.devcontainer` directory read-only over it: the file names commands that the editor
    runs on the host, so nothing in the container may write it.

    Args:
        words: podman's flags, and the image.
        rootless: Podman runs as an ordinary user.

    Raises:
        TerokError: USAGE: a command or a flag that the editor sets itself, a user that is no number, or a `${`, which
            the format would replace.
    """
    name = _name(words)
    values = {flag.name: flag.value for flag in words.flags}
    folder = values.get("workdir", WORKSPACE)
    user = values.get("user", "root")
    _editors(words, user, rootless=rootless)
    mounts = [f"type=bind,source=${{localWorkspaceFolder}}/.devcontainer,target={folder}/.devcontainer,readonly"]
    environment: dict[str, str] = {}
    arguments: list[str] = []
    for flag in words.flags:
        variable, given, value = flag.value.partition("=")
        mount = _mount(flag.value) if flag.name == "volume" else None
        if mount:
            mounts.append(mount)
        elif flag.name == "env" and given:
            environment[variable] = value
        elif flag.name not in _DEVCONTAINER_NEEDLESS:
            arguments.append(_joined(flag))
    if user.partition(":")[0] not in ("root", "0") and rootless:
        uid, _, gid = user.partition(":")
        # what this user writes belongs to the operator; editors add a keep-id of their own, and the last one counts
        arguments.append(f"--userns=keep-id:uid={uid},gid={gid or uid}")
    document = {
        "name": name,
        "image": words.rest[0] if words.rest else IMAGE,
        "workspaceMount": f"type=bind,source=${{localWorkspaceFolder}},target={folder},relabel=shared",
        "workspaceFolder": folder,
        "containerUser": user,
        "remoteUser": user.partition(":")[0],
        "updateRemoteUserUID": False,
        "init": is_on(values.get("init", "false")),
        "mounts": mounts,
        "containerEnv": environment,
        "runArgs": arguments,
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


_DEVCONTAINER_NEEDLESS = frozenset({"detach", "rm", "tty", "interactive", "init", "user", "workdir"})
"""Flags that editors decide themselves, and those that have a property of their own."""


def _editors(words: Words, user: str, *, rootless: bool) -> None:
    """Refuse what an editor would replace or run in another way than Podman does."""
    if words.rest[1:] or any(flag.name == "entrypoint" for flag in words.flags):
        raise TerokError(
            "A dev container's command is the editor's.",
            fix="remove the command after the image, and --entrypoint",
            code=Exit.USAGE,
        )
    if rootless and user != "root" and not user.replace(":", "", 1).isdecimal():
        raise TerokError(
            f"The user {user!r} is no number, so that its files cannot be given to you.",
            fix="--user 1000, or whatever number the image gives it",
            code=Exit.USAGE,
        )
    for word in [*(flag.value for flag in words.flags), *words.rest]:
        if "${" in word:
            raise TerokError(
                f"{word!r} holds ${{, which devcontainer.json replaces and cannot escape.",
                fix="remove it here, and write it into the file yourself",
                code=Exit.USAGE,
            )


def _mount(volume: str) -> str | None:
    """A bind mount or volume of `--volume` in the notation of `--mount`; None when that cannot say it."""
    source, _, rest = volume.partition(":")
    target, _, options = rest.partition(":")
    if not target or source.startswith(".") or "," in source + target or '"' in source + target:
        return None
    words = [_OPTIONS.get(option) for option in options.split(",") if option not in ("", "rw")]
    if None in words:
        return None
    kind = "bind" if source.startswith("/") else "volume"
    return ",".join([f"type={kind},source={source},target={target}", *filter(None, words)])


_OPTIONS = {"ro": "readonly", "z": "relabel=shared", "Z": "relabel=private"}
