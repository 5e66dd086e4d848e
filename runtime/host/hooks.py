"""The OCI hook descriptors and the drop-in that announces their directory to Podman."""

from __future__ import annotations

import json
import os
import shlex
import sys
import tomllib
from collections.abc import Container, Mapping
from typing import Any

from ...supervisor.ground.layout import Layout, containers_conf_dropin, outer_uid, program
from ...supervisor.ground.process import CLEAN_ENV

STAGES = ("createRuntime", "poststop")
HOOK_SECONDS = 20
"""After this long crun kills a hook and refuses the start; the hook's own deadline is shorter."""

SYSTEM_LAYOUT = Layout.from_environ({}, uid=0)
"""Where root's own installation is."""
SYSTEM_HOOK_DIRS = ("/usr/share/containers/oci/hooks.d", "/etc/containers/oci/hooks.d")
"""Podman's default `hooks_dir` (containers.conf(5)). A file that sets the key replaces the list, so it is repeated."""


def descriptor(layout: Layout, stage: str) -> dict[str, Any]:
    """The hook of one stage, as podman's `oci-hooks(5)` describes it, schema 1.0.0.

    The path is a link to the interpreter, named for people: of a hook that refuses a start, Podman shows the path and
    nothing else. The interpreter's absolute path is its argv[0], since Python derives `sys.executable` from it. The
    environment is given, since crun would hand its own on (crun 0.17: the container's), and the loader follows
    LD_LIBRARY_PATH before the hook's first line; so the layout's directories are arguments.
    """
    entry = program("hookbin", "entry.py")
    interpreter = os.path.abspath(sys.executable)
    return {
        "version": "1.0.0",
        "hook": {
            "path": layout.hook_program,
            "args": [interpreter, "-I", "-S", entry, stage, layout.data, layout.runtime, layout.config],
            "env": [f"{name}={value}" for name, value in CLEAN_ENV.items()],
            "timeout": HOOK_SECONDS,
        },
        # every key that resembles ours: the hook refuses a misspelt one, which would otherwise start an open container
        "when": {"annotations": {"(?i)terok": ".*"}},
        "stages": [stage],
    }


def descriptor_path(layout: Layout, stage: str) -> str:
    """Where the descriptor of a stage is."""
    return layout.hook(stage)


def descriptor_text(layout: Layout, stage: str) -> str:
    """The descriptor's file content."""
    return json.dumps(descriptor(layout, stage), indent=2) + "\n"


def _leads_to(link: str, target: str) -> bool:
    try:
        return os.readlink(link) == target
    except OSError:
        return False


def link_program(layout: Layout) -> bool:
    """Make the link that the descriptors name; True when it was not there or led elsewhere."""
    target = os.path.abspath(sys.executable)
    if _leads_to(layout.hook_program, target):
        return False
    new = layout.hook_program + ".new"
    if os.path.lexists(new):
        os.unlink(new)
    os.symlink(target, new)
    os.replace(new, layout.hook_program)
    return True


def config_files(environ: Mapping[str, str], *, uid: int | None = None, by_name: bool = False) -> list[str]:
    """The containers.conf files that Podman reads, in its order, ours among them (containers.conf(5)).

    Args:
        environ, uid: whose Podman.
        by_name: in the order of Podman 6: the main files first, then the drop-ins of all folders by file name.
    """
    uid = outer_uid() if uid is None else uid
    user = os.path.dirname(os.path.dirname(containers_conf_dropin(environ, uid=1000)))
    bases = ["/usr/share/containers", "/etc/containers", *([user] if uid else [])]
    paths: list[str] = []
    for base in bases:
        paths.append(os.path.join(base, "containers.conf"))
        folder = os.path.join(base, "containers.conf.d")
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        paths += [os.path.join(folder, name) for name in names if name.endswith(".conf")]
    if by_name:
        paths.sort(key=lambda path: os.path.basename(path) if ".conf.d/" in path else "")
    return [path for path in paths if os.path.isfile(path)]


def hook_dirs_of(path: str) -> tuple[list[str], bool] | None:
    """The `hooks_dir` that one containers.conf file sets, and whether it adds to the files before it.

    None when the file says nothing about it or can't be read. Podman 5 and newer take `{append=true}` at the end of a
    list (containers.conf(5), "Appending to string arrays").
    """
    try:
        with open(path, "rb") as file:
            value = tomllib.load(file).get("engine", {}).get("hooks_dir")
    except (OSError, tomllib.TOMLDecodeError, AttributeError):
        return None
    if not isinstance(value, list):
        return None
    append = any(isinstance(item, dict) and item.get("append") is True for item in value)
    return [item for item in value if isinstance(item, str)], append


def effective_hook_dirs(
    environ: Mapping[str, str], *, uid: int | None = None, without: Container[str] = (), by_name: bool = False
) -> tuple[list[str], str]:
    """The hook directories that Podman will use, and the file that decided; the defaults and "" when none did.

    Args:
        environ, uid: whose Podman.
        without: files to ignore.
        by_name: in the order of Podman 6, which sorts the drop-ins of all folders by file name.
    """
    dirs, decided = list(SYSTEM_HOOK_DIRS), ""
    only, last = environ.get("CONTAINERS_CONF"), environ.get("CONTAINERS_CONF_OVERRIDE")
    for path in [*([only] if only else config_files(environ, uid=uid, by_name=by_name)), *([last] if last else [])]:
        setting = hook_dirs_of(path) if path not in without else None
        if setting is not None:
            value, append = setting
            dirs, decided = [*dirs, *value] if append else value, path
    return dirs, decided


def dropin_text(layout: Layout, others: list[str]) -> str:
    """The drop-in: the other hook directories, without the one of root's terok (no hook runs twice), and ours."""
    dirs = [*(other for other in others if other not in (layout.hooks, SYSTEM_LAYOUT.hooks)), layout.hooks]
    # JSON's strings are TOML's basic strings
    return (
        "# Written by `terok setup`; `terok uninstall` removes it. It repeats the hook directories that were in force\n"
        "# before, because Podman takes the last file's list alone.\n"
        f"[engine]\nhooks_dir = {json.dumps(dirs)}\n"
    )


def problem(layout: Layout, environ: Mapping[str, str], *, uid: int | None = None) -> str | None:
    """Why Podman would not run the hooks of terok; None when it will. Reads a few small files."""
    for stage in STAGES:
        path = descriptor_path(layout, stage)
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError:
            return f"The hook descriptor {path} is missing."
        if text != descriptor_text(layout, stage):
            return f"The hook descriptor {path} belongs to another installation of terok."
    if not _leads_to(layout.hook_program, os.path.abspath(sys.executable)):
        return f"The link {layout.hook_program} to the hook's interpreter is missing."
    if not os.path.isdir(layout.presence):
        return f"{layout.presence}, which containers mount, is missing."
    entry = program("hookbin", "entry.py")
    if not os.path.isfile(entry):
        return f"The hook program {entry} is missing."
    for by_name in (False, True):
        dirs, decided = effective_hook_dirs(environ, uid=uid, by_name=by_name)
        if layout.hooks not in dirs:
            by = f"{decided} sets hooks_dir and hides it" if decided else "no containers.conf names it"
            return f"Podman does not look into {layout.hooks}: {by}."
    return None


def how_to_fix(layout: Layout, environ: Mapping[str, str], *, uid: int | None = None) -> str:
    """What makes Podman run the hooks again: setup, or removing a setting that would win over setup's."""
    deciding = [effective_hook_dirs(environ, uid=uid, by_name=by_name) for by_name in (False, True)]
    decided = next((file for dirs, file in deciding if layout.hooks not in dirs), "")
    ours = containers_conf_dropin(environ, uid=uid)
    if environ.get("CONTAINERS_CONF"):
        return "unset CONTAINERS_CONF, which makes Podman read no other file"
    if decided and decided == environ.get("CONTAINERS_CONF_OVERRIDE"):
        return f"unset CONTAINERS_CONF_OVERRIDE, or add {layout.hooks} to hooks_dir in that file"
    later = decided and decided != ours and os.path.dirname(decided).endswith(".conf.d")
    if later and os.path.basename(decided) > os.path.basename(ours):
        return f"remove hooks_dir from {shlex.quote(decided)}, or add {layout.hooks} to it; then terok setup"
    return "terok setup"


def require_hooks(layout: Layout, environ: Mapping[str, str]) -> None:
    """Raise SystemExit, with the command that fixes it as its message, when Podman would not run the hooks.

    Without the hooks a container would start without firewall and services: nothing else would refuse it.
    """
    why = problem(layout, environ)
    if why:
        raise SystemExit(f"terok: {why}\n  fix: {how_to_fix(layout, environ)}")
