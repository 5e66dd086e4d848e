"""JSON and signals without `re` and `enum`, which cost every hook 8 ms (a third of its time).

`json` compiles regular expressions and `signal` builds enumerations when they are imported. Both are thin layers over
C modules of CPython that need neither: `_json` has the scanner and the string encoder, `_signal` every function and
number. Interpreters without them get the ordinary modules.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import Any
else:
    try:
        import _signal as signal
    except ImportError:
        import signal

__all__ = ["dumps", "loads", "reset_signals", "signal"]

_WHITESPACE = " \t\n\r"


def _scanner() -> Callable[[str, int], tuple[object, int]] | None:
    try:
        from _json import make_scanner
    except ImportError:
        return None

    class Settings:
        """What the C scanner asks its decoder for: plain JSON, strict strings, no NaN."""

        strict = True
        object_hook = object_pairs_hook = None
        parse_float, parse_int = float, int

        @staticmethod
        def parse_constant(name: str) -> object:
            raise ValueError(f"{name} is not JSON")

    scan: Callable[[str, int], tuple[object, int]] = make_scanner(Settings())  # type: ignore[arg-type]  # any object with these attributes
    return scan


_scan = _scanner()


def loads(content: bytes | str) -> Any:
    """Decode one JSON document (RFC 8259), UTF-8 when it is bytes.

    Raises:
        ValueError: it is not JSON, or more follows it.
        RecursionError: it is nested too deeply.
    """
    text = content.decode() if isinstance(content, bytes) else content
    if _scan is None:
        import json

        return json.loads(text)
    begin = len(text) - len(text.lstrip(_WHITESPACE))
    try:
        value, end = _scan(text, begin)
    except StopIteration as stop:
        raise ValueError(f"no value at character {stop.value}") from None
    except SystemError:
        # the scanner takes its exception class from sys.modules and raises nothing when json was never imported
        raise ValueError(f"a syntax error after character {begin}") from None
    if text[end:].strip(_WHITESPACE):
        raise ValueError(f"more follows the value at character {end}")
    return value


def _quoter() -> Callable[[str], str]:
    try:
        from _json import encode_basestring_ascii
    except ImportError:
        from json.encoder import encode_basestring_ascii
    return encode_basestring_ascii


_quote = _quoter()
_WORDS = {None: "null", True: "true", False: "false"}


def dumps(value: object, indent: str | None = "") -> str:
    """Encode as JSON, ASCII only; `value` is made of dict with str keys, list, tuple, str, numbers, bool and None.

    Args:
        indent: what stands before the closing bracket, each level one space deeper; None: all on one line.

    Raises:
        TypeError: it has something else in it.
    """
    if isinstance(value, str):
        return _quote(value)
    if value is None or value is True or value is False:
        return _WORDS[value]
    if isinstance(value, (int, float)):
        return repr(value)
    inner = None if indent is None else indent + " "
    if isinstance(value, dict):
        return _bracket("{}", [f"{_quote(key)}: {dumps(item, inner)}" for key, item in value.items()], indent)
    if isinstance(value, (list, tuple)):
        return _bracket("[]", [dumps(item, inner) for item in value], indent)
    raise TypeError(f"{type(value).__name__} has no place in JSON")


def _bracket(pair: str, members: list[str], indent: str | None) -> str:
    if not members:
        return pair
    if indent is None:
        return pair[0] + ", ".join(members) + pair[1]
    return f"{pair[0]}\n{indent} " + f",\n{indent} ".join(members) + f"\n{indent}{pair[1]}"


def reset_signals() -> None:
    """Default dispositions and an empty mask: crun starts hooks with every signal blocked, and children inherit it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
