"""The one reader and the one renderer of audit logs: of a container, of the vault, of a gate."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from ...supervisor.ground.errors import Exit, TerokError
from .alive import containers
from .env import Env, Output
from .table import plain

_SOURCES = frozenset({"shield", "hook", "supervisor"})
_UNSEEN = frozenset({"chain"})
"""What only programs look at."""
_PAUSE = 0.2


def read(path: str) -> Iterator[dict[str, Any]]:
    """Every entry of a log and of the one before it, oldest first; lines that are no JSON objects are passed over."""
    for file in (path + ".1", path):
        try:
            with open(file, encoding="utf-8", errors="replace") as lines:
                yield from (entry for entry in map(decode, lines) if entry)
        except FileNotFoundError:
            continue


def decode(line: str) -> dict[str, object]:
    """One entry; empty for a line that is no JSON object, or one of any depth: processes of containers write logs."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return entry if isinstance(entry, dict) else {}


def coming(path: str) -> Iterator[dict[str, object] | None]:
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
        yield from (entry for entry in map(decode, whole) if entry)
        yield None


def waiting(path: str) -> Iterator[dict[str, object]]:
    """Entries that come from now on, one after the other; never ends."""
    for entry in coming(path):
        if entry is None:
            time.sleep(_PAUSE)
        else:
            yield entry


def local_time(stamp: object, today: tuple[int, ...] | None = None) -> str:
    """A log's time for people: `14:03:22` today, `2026-01-31 14:03:22` else, in the local time zone.

    Args:
        stamp: UTC, as RFC 3339; anything else is returned as it is.
        today: year, month and day; default: now.
    """
    try:
        seconds = datetime.fromisoformat(str(stamp).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return str(stamp)
    local = time.localtime(seconds)
    same_day = local[:3] == (today or time.localtime()[:3])
    return time.strftime("%H:%M:%S" if same_day else "%Y-%m-%d %H:%M:%S", local)


def since_text(text: str, now: float) -> str:
    """The oldest time that `--since` asks for, as the log writes times.

    Args:
        text: an age (`30s`, `5m`, `2h`, `1d`), or a time as RFC 3339; without a zone it is local.
        now: Unix time.

    Raises:
        TerokError: it is neither.
    """
    age = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    try:
        if age:
            moment = now - int(age[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[age[2]]
        else:
            moment = datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))
    except (ValueError, OverflowError, OSError):
        raise TerokError(
            f"{text[:40]!r} is not a time.", fix="--since 5m, or --since 2026-01-31T12:00:00Z", code=Exit.USAGE
        ) from None


def line(entry: Mapping[str, object], out: Output | None = None) -> str:
    """One entry for people, on one line; what a container sent is shown without its control characters.

    Args:
        entry: as `read` gives it.
        out: where it will be printed: colours refusals.
    """
    left = {key: value for key, value in entry.items() if key not in _UNSEEN and value not in (None, "", [])}
    head = [plain(local_time(left.pop("time", "")))]
    head += [plain(str(left.pop(key))) for key in ("container", "source", "event") if key in left]
    verdict = plain(str(left.pop("verdict", "")))
    head.append(out.paint(verdict, "bad") if out is not None and verdict == "refused" else verdict)
    if "address" in left or {"name", "port", "proto"} <= left.keys():
        name, port, proto = (plain(str(left.pop(key, ""))) for key in ("name", "port", "proto"))
        address = plain(str(left.pop("address", "")))
        head += [name, f"{address}:{port}/{proto}" if address else f"{port}/{proto}"]
    elif "method" in left:
        head += [plain(str(left.pop(key, ""))) for key in ("method", "path", "status")]
    return " ".join([word for word in head if word] + [f"{plain(key)}={_value(value)}" for key, value in left.items()])


def _value(value: object) -> str:
    text = plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return f'"{text}"' if " " in text else text


def show_logs(name: str | None, count: int, env: Env, *, follow: bool, since: str = "") -> int:
    """Print the last `count` entries since a time, of one container or of all, and with `follow` go on."""
    names = [name] if name else containers(env.layout)
    logs = {container: env.layout.bundle(container).audit for container in names}
    entries = [
        {"container": container, **entry}
        for container, path in logs.items()
        for entry in read(path)
        if entry.get("source") in _SOURCES and str(entry.get("time", "")) >= since
    ]
    entries.sort(key=lambda entry: str(entry.get("time")))
    shown = entries[-count:] if count > 0 else []
    if not follow:
        env.out.emit(shown, "\n".join(_named(entry, name) for entry in shown))
        return Exit.OK
    for entry in shown:
        _print(entry, name, env)
    _go_on(logs, name, env)
    return Exit.OK


def _go_on(logs: dict[str, str], name: str | None, env: Env) -> None:
    sources = {container: coming(path) for container, path in logs.items()}
    while True:
        quiet = True
        for key, source in sources.items():
            entry = next(source)
            if entry is not None:
                quiet = False
                if entry.get("source") in _SOURCES:
                    _print({"container": key, **entry}, name, env)
        if quiet:
            time.sleep(_PAUSE)


def _print(entry: dict[str, object], name: str | None, env: Env) -> None:
    text = json.dumps(entry) if env.out.json_output else _named(entry, name)
    env.out.stream.write(text + "\n")
    env.out.stream.flush()


def _named(entry: dict[str, object], name: str | None) -> str:
    return line({key: value for key, value in entry.items() if name is None or key != "container"})
