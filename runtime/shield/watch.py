"""`terok shield watch`: what a container reaches and is refused, as it happens, with keys to decide about it."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable
from typing import Any

from ...sidecars.shield import hints, live
from ...sidecars.shield.later import later
from ...sidecars.shield.targets import Target
from ...supervisor.ground.errors import Exit, TerokError
from ..kit.audit_lines import coming, line
from ..kit.env import Env

ONCE, A_TIME = 60, 600
KEYS = f"""\
a  allow what was refused last, for good      o  for {ONCE} seconds      t  for {A_TIME // 60} minutes
d  deny what was seen last, for good          q  leave"""
_PAUSE = 0.1


def target_of(entry: dict[str, Any]) -> Target | None:
    """What an entry of the audit log is about: the name when one is known, else the address; with its port."""
    name, address = entry.get("name"), entry.get("address")
    port, protocol = entry.get("port"), entry.get("proto")
    if entry.get("event") == "dns" and name:
        return hints.name_target(str(name))
    if not address or not isinstance(port, int):
        return None
    return hints.packet_target(str(name) if name else None, str(address), port, str(protocol))


def decide(key: str, refused: Target | None, seen: Target | None) -> tuple[str, Target, float | None] | None:
    """What a key means: (verb, target, seconds until it is taken back or None); None when it means nothing now."""
    times: dict[str, float | None] = {"a": None, "o": ONCE, "t": A_TIME}
    if key in times and refused is not None:
        return "allow", refused, times[key]
    if key == "d" and seen is not None:
        return "deny", seen, None
    return None


def watch(name: str, env: Env) -> int:
    """Print entries as they come until `q` or the interrupt; without a terminal, only print."""
    bundle = env.layout.bundle(name)
    if live.Running.find(bundle) is None:
        raise TerokError(f"{name} does not run.", fix=f"podman start {name}", code=Exit.NOT_FOUND)
    interactive = sys.stdin.isatty() and not env.out.json_output
    if interactive:
        env.note(KEYS)
    with _Keys(interactive) as pressed:
        return _watch(name, env, pressed)


def _watch(name: str, env: Env, pressed: Callable[[], str]) -> int:
    import json

    bundle = env.layout.bundle(name)
    refused: Target | None = None
    seen: Target | None = None
    for entry in coming(bundle.audit):
        if entry is not None:
            if entry.get("source") != "shield":
                continue
            env.out.stream.write((json.dumps(entry) if env.out.json_output else line(entry)) + "\n")
            env.out.stream.flush()
            target = target_of(entry)
            seen = target or seen
            refused = target if target and entry.get("verdict") == "refused" else refused
            continue
        key = pressed()
        if key == "q":
            return Exit.OK
        chosen = decide(key, refused, seen)
        if chosen:
            _do(name, env, *chosen)
    return Exit.OK


def _do(name: str, env: Env, verb: str, target: Target, seconds: float | None) -> None:
    bundle = env.layout.bundle(name)
    running = live.Running.find(bundle)
    try:
        if verb == "deny":
            live.deny(bundle, running, [target])
        else:
            until = None if seconds is None else time.time() + seconds
            live.allow(bundle, running, [target], until=until)
    except TerokError as error:
        env.note(f"terok: {error}")
        return
    if seconds is not None:
        later(seconds, bundle)
    done = "denied" if verb == "deny" else "allowed"
    env.note(f"{done} {target}" + (f" for {seconds:g} seconds" if seconds is not None else ""))


class _Keys:
    """Single key presses from the terminal; waits a moment for one. Without a terminal it only waits."""

    def __init__(self, interactive: bool) -> None:
        self._interactive = interactive
        self._saved: list[Any] | None = None

    def __enter__(self) -> Callable[[], str]:
        if self._interactive:
            self._saved = termios.tcgetattr(0)
            tty.setcbreak(0)
        return self._press

    def __exit__(self, *_: object) -> None:
        if self._saved is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, self._saved)

    def _press(self) -> str:
        if not self._interactive:
            time.sleep(_PAUSE)
            return ""
        ready, _, _ = select.select([0], [], [], _PAUSE)
        return os.read(0, 1).decode(errors="replace") if ready else ""
