"""`terok setup` and `terok uninstall`: the hooks, the drop-in that announces them, and what the host lacks."""

from __future__ import annotations

import argparse
import os

from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import OLD_DROPIN, containers_conf_dropin, outer_uid
from ..host import hooks, modules, selinux
from ..kit import check, files
from ..kit.env import Env
from ..kit.verb import switch, verb
from . import checks, unprotected


@verb(
    switch("--check", "change nothing, only report"),
    exits=((5, "a step remains that you must do"),),
    files=("$XDG_CONFIG_HOME/containers/containers.conf.d/", "$XDG_DATA_HOME/terok/hooks/"),
)
def setup(args: argparse.Namespace, env: Env) -> int:
    """Install the hook descriptors, announce them to Podman, and check what the host has.

    It never needs root and can be repeated.
    """
    done = [] if args.check else install(env)
    with env.slow("Looking at the host"):
        results = checks.run_all(env)
    confined = selinux.block(env)
    lines = [
        *done,
        *([""] if done else []),
        *checks.render(results, env.out),
        *(confined.lines(env.out) if confined else []),
    ]
    failed = [result for result in results if result.state == check.FAIL]
    if not failed:
        lines += ["", "Next, in a project's directory: terok start claude (or another of `terok agents`)"]
    data = {"done": done, "checks": [result.to_dict() for result in results]}
    env.out.emit({**data, "selinux": confined.to_dict() if confined else None}, "\n".join(lines))
    if failed:
        return Exit.MANUAL if all(result.fix for result in failed) else Exit.FAILURE
    return Exit.MANUAL if confined and confined.way == selinux.NONE else Exit.OK


def install(env: Env) -> list[str]:
    """Write the descriptors and the drop-in where they differ; returns one sentence for each change.

    Raises:
        TerokError: a directory or file can't be written.
    """
    done: list[str] = []
    # root's drop-in is read by every user's Podman, which gives up when it can't look into a directory named there
    system = outer_uid() == 0
    files.make_dir(env.layout.data, 0o711 if system else 0o700)
    files.make_dir(env.layout.hooks, 0o755 if system else 0o700)
    files.make_dir(env.layout.presence, 0o755)
    if hooks.link_program(env.layout):
        done.append(f"Wrote {env.layout.hook_program}")
    if modules.write(env.layout):
        done.append(f"Wrote {env.layout.hook_modules}")
    for stage in hooks.STAGES:
        _put(hooks.descriptor_path(env.layout, stage), hooks.descriptor_text(env.layout, stage), done)
    dropin, old = containers_conf_dropin(env.environ), containers_conf_dropin(env.environ, name=OLD_DROPIN)
    others, _ = hooks.effective_hook_dirs(env.environ, without=(dropin, old))
    os.makedirs(os.path.dirname(dropin), exist_ok=True)
    _put(dropin, hooks.dropin_text(env.layout, others), done)
    if files.remove_file(old):
        done.append(f"Removed {old}, which {os.path.basename(dropin)} replaces")
    return done or ["The hooks are installed already; nothing was changed."]


def _put(path: str, content: str, done: list[str]) -> None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            if file.read() == content:
                return
        verb = "Updated"
    except OSError:
        verb = "Wrote"
    files.write(path, content, mode=0o644)
    done.append(f"{verb} {path}")


@verb(switch("--force", "also when containers would be left without protection"))
def uninstall(args: argparse.Namespace, env: Env) -> int:
    """Remove the hook descriptors and their containers.conf drop-in, and nothing else.

    State of containers, the vault and the configuration stay. Prepared containers cannot start until `terok setup`
    runs again. It is refused while containers exist that would run or start unprotected then.
    """
    left = [] if args.force else unprotected.left_open(env)
    if left:
        names = ", ".join(known.name for known in left)
        raise TerokError(
            f"Without the hooks these containers would run or start unprotected: {names}.",
            fix="remove them with podman rm, or use --force",
            code=Exit.REFUSED,
        )
    dropin, old = containers_conf_dropin(env.environ), containers_conf_dropin(env.environ, name=OLD_DROPIN)
    done = [
        f"Removed {path}"
        for path in [
            dropin,
            old,
            env.layout.hook_program,
            env.layout.hook_modules,
            *(hooks.descriptor_path(env.layout, stage) for stage in hooks.STAGES),
        ]
        if files.remove_file(path)
    ]
    for folder in (env.layout.presence, env.layout.hooks, env.layout.data, os.path.dirname(dropin)):
        if _rmdir(folder):
            done.append(f"Removed {folder}/")
    policy = selinux.removal()
    if policy:
        env.note(f"The SELinux policy module is still loaded; an administrator can remove it: {policy}")
    if os.path.isdir(env.layout.containers):
        env.note(f"The state of containers remains in {env.layout.containers}; `terok cleanup NAME` removes it.")
    env.out.emit({"done": done}, "\n".join(done) or "The hooks were not installed.")
    return Exit.OK


def _rmdir(path: str) -> bool:
    try:
        os.rmdir(path)
    except OSError:
        return False
    return True
