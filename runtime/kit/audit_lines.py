"""The one reader and the one renderer of audit logs: of a container, of the vault, of a gate."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ...supervisor.ground.errors import Exit
from .env import Env, Output
from .table import plain

_SOURCES = frozenset({"shield", "hook", "supervisor"})
_UNSEEN = frozenset({"chain"})
"""What only programs look at."""
_PAUSE = 0.2


def read(path: str) -> Iterator[dict[str, Any]]:
    """Every entry of a log and of the one before it, oldest first; lines that are no JSON objects are passed over."""
    for each in (path + ".1", path):
        try:
            with open(each, encoding="utf-8", errors="replace") as lines:
                yield from (entry for entry in map(_decode, lines) if entry)
        except FileNotFoundError:
            continue


def _decode(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def coming(path: str) -> Iterator[dict[str, Any] | None]:
    """Entries that come from now on; None whenever there is nothing new for a moment. Survives rotation."""
    at = os.path.getsize(path) if os.path.exists(path) else 0
    rest = ""
    while True:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                if os.fstat(file.fileno()).st_size < at:
                    at, rest = 0, ""  # emptied by a rotation
                file.seek(at)
                text = rest + file.read()
                at = file.tell()
        except FileNotFoundError:
            text = ""
        *whole, rest = text.split("\n") if text else [""]
        yield from (entry for entry in map(_decode, whole) if entry)
        yield None


def line(entry: Mapping[str, Any], out: Output | None = None) -> str:
    """One entry for people, on one line; what a container sent is shown with control characters escaped.

    Args:
        entry: as `read` gives it.
        out: where it will be printed: colours refusals.
    """
    left = {key: value for key, value in entry.items() if key not in _UNSEEN and value not in (None, "", [])}
    head = [plain(str(left.pop(key))) for key in ("time", "container", "source", "event") if key in left]
    verdict = plain(str(left.pop("verdict", "")))
    head.append(out.paint(verdict, "bad") if out is not None and verdict == "refused" else verdict)
    if "address" in left:
        name, port, proto = (plain(str(left.pop(key, ""))) for key in ("name", "port", "proto"))
        head += [name, f"{plain(str(left.pop('address')))}:{port}/{proto}"]
    elif "method" in left:
        head += [plain(str(left.pop(key, ""))) for key in ("method", "path", "status")]
    return " ".join([word for word in head if word] + [f"{plain(key)}={_value(value)}" for key, value in left.items()])


def _value(value: Any) -> str:
    text = plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return f'"{text}"' if " " in text else text


def show_logs(name: str | None, count: int, env: Env, *, follow: bool) -> int:
    """Print the last `count` entries of one container or of all, and with `follow` go on."""
    names = [name] if name else _containers(env)
    logs = {each: env.layout.bundle(each).audit for each in names}
    entries = [
        {"container": each, **entry}
        for each, path in logs.items()
        for entry in read(path)
        if entry.get("source") in _SOURCES
    ]
    entries.sort(key=lambda entry: str(entry.get("time")))
    shown = entries[-count:] if count > 0 else []
    if not follow:
        env.out.emit(shown, "\n".join(_named(each, name) for each in shown))
        return Exit.OK
    for each in shown:
        _print(each, name, env)
    _go_on(logs, name, env)
    return Exit.OK


def _go_on(logs: dict[str, str], name: str | None, env: Env) -> None:
    sources = {each: coming(path) for each, path in logs.items()}
    while True:
        quiet = True
        for each, source in sources.items():
            entry = next(source)
            if entry is not None:
                quiet = False
                if entry.get("source") in _SOURCES:
                    _print({"container": each, **entry}, name, env)
        if quiet:
            time.sleep(_PAUSE)


def _print(entry: dict[str, Any], name: str | None, env: Env) -> None:
    text = json.dumps(entry) if env.out.json_output else _named(entry, name)
    env.out.stream.write(text + "\n")
    env.out.stream.flush()


def _named(entry: dict[str, Any], name: str | None) -> str:
    return line({key: value for key, value in entry.items() if name is None or key != "container"})


def _containers(env: Env) -> list[str]:
    try:
        found = os.listdir(env.layout.containers)
    except FileNotFoundError:
        return []
    return sorted(each for each in found if each[:1].isalnum())
