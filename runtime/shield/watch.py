"""`terok shield watch`: what a container reaches and is refused, as it happens, with keys to decide about it."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable
from typing import Any, NamedTuple

from ...sidecars.airlock import questions
from ...sidecars.shield import hints, live
from ...sidecars.shield.later import later
from ...sidecars.shield.targets import Target
from ...supervisor.ground import paste
from ...supervisor.ground.errors import Exit, TerokError
from ..kit.audit_lines import coming, line
from ..kit.env import Env
from .show import ports_text

ONCE, A_TIME = 60, 600
KEYS = f"""\
Type a line's number to choose it (default: the newest), then:
a  allow it for good   o  for {ONCE} seconds   t  for {A_TIME // 60} minutes   d  deny it for good   q  leave
The first press shows what will be done; the same key again, or Enter, does it."""
NUMBERED = 99
"""Lines are numbered up to this, then from 1 again; the newest line of a number counts."""
_PAUSE = 0.1


def target_of(entry: dict[str, object]) -> Target | None:
    """What an entry of the audit log is about: the name when one is known, else the address; with its port."""
    name, address = entry.get("name"), entry.get("address")
    port, protocol = entry.get("port"), entry.get("proto")
    if entry.get("event") == "dns" and name:
        return hints.name_target(str(name))
    if entry.get("event") == "ask" and name and isinstance(port, int):
        return questions.target_of(str(name), port)
    if not address or not isinstance(port, int):
        return None
    return hints.packet_target(str(name) if name else None, str(address), port, str(protocol))


class Action(NamedTuple):
    """What a key stands for.

    verb: `allow` or `deny`.
    target: what about.
    seconds: until it is taken back; None: for good.
    """

    verb: str
    target: Target
    seconds: float | None = None

    def __str__(self) -> str:
        rest = "" if self.seconds is None else f" for {self.seconds:g} seconds"
        ports = "" if self.verb == "deny" else f" ({ports_text(self.target.ports)})"
        return f"{self.verb} {self.target}{ports}{rest}"


class Choice:
    """Lines by number, and keys that choose one and act on it. Pure: keys in, what to say and what to do out."""

    def __init__(self) -> None:
        self._targets: dict[int, Target] = {}
        self._number = 0
        self._refused: Target | None = None
        self._seen: Target | None = None
        self._typed = ""
        self._offered: tuple[str, Action] | None = None

    def add(self, target: Target | None, *, refused: bool) -> int:
        """Take in a line; returns its number, 0 for one that nothing can be decided about."""
        if target is None:
            return 0
        self._number = self._number % NUMBERED + 1
        self._targets[self._number] = self._seen = target
        self._refused = target if refused else self._refused
        return self._number

    def press(self, key: str) -> tuple[str, Action | None]:
        """A key: what to say ("" for nothing), and what to do now."""
        if key.isdecimal() and key.isascii():
            self._typed, self._offered = (self._typed + key)[-2:], None
            chosen = self._targets.get(int(self._typed))
            return f"{self._typed}: {chosen}" if chosen else f"{self._typed}: no such line", None
        if self._offered and key in (self._offered[0], "\n", "\r"):
            action = self._offered[1]
            self._typed, self._offered = "", None
            return "", action
        meant = self._meaning(key)
        self._offered = (key, meant) if meant else None
        return (f"{meant}? Press {key} again." if meant else ""), None

    def _meaning(self, key: str) -> Action | None:
        times: dict[str, float | None] = {"a": None, "o": ONCE, "t": A_TIME}
        chosen = self._targets.get(int(self._typed)) if self._typed else None
        if key in times:
            target = chosen if self._typed else self._refused
            return Action("allow", target, times[key]) if target else None
        target = chosen if self._typed else self._seen
        return Action("deny", target) if key == "d" and target else None


def watch(name: str, env: Env) -> int:
    """Print entries as they come until `q` or the interrupt; without a terminal, only print."""
    bundle = env.layout.bundle(name)
    if live.Running.find(bundle) is None:
        raise TerokError(f"{name} is not running.", fix=paste.command("podman", "start", name), code=Exit.NOT_FOUND)
    interactive = sys.stdin.isatty() and not env.out.json_output
    with _Keys(interactive) as pressed:
        if interactive:
            env.note(KEYS)
        return _watch(name, env, pressed)


def _watch(name: str, env: Env, pressed: Callable[[], str]) -> int:
    import json

    bundle = env.layout.bundle(name)
    choice = Choice()
    for entry in coming(bundle.audit):
        if entry is not None:
            if entry.get("source") != "shield":
                continue
            number = choice.add(target_of(entry), refused=entry.get("verdict") in ("refused", "asked"))
            text = json.dumps(entry) if env.out.json_output else f"{number or '':>2}  {line(entry)}"
            env.out.stream.write(text + "\n")
            env.out.stream.flush()
            continue
        key = pressed()
        if key == "q":
            return Exit.OK
        said, action = choice.press(key) if key else ("", None)
        if said:
            env.note(said)
        if action:
            _do(name, env, *action)
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
            try:
                tty.setcbreak(0)
            except BaseException:  # the interrupt too: `with` calls __exit__ only after this has returned
                self.__exit__()
                raise
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
