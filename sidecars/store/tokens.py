"""Phantom tokens: random strings in the shape that a provider's clients check for.

A template is text with one or more placeholders `{kind:length}`; kind is `hex`, `alnum`, `base64url` or `upper`
(upper-case letters and digits). Everything else stands for itself: `sk-ant-api03-{base64url:93}AA`. The template
`jwt` with claims gives an unsigned JSON Web Token (RFC 7519, `alg: none`) whose signature part is random.
"""

from __future__ import annotations

import json
import math
import re
import string
from typing import TYPE_CHECKING

from .light import sha256

if TYPE_CHECKING:
    from collections.abc import Mapping

RANDOM_BITS_MIN = 128

ALPHABETS = {
    "hex": "0123456789abcdef",
    "alnum": string.ascii_letters + string.digits,
    "base64url": string.ascii_letters + string.digits + "-_",
    "upper": string.ascii_uppercase + string.digits,
}
DEFAULT_TEMPLATE = "terok-{alnum:40}"

_PLACEHOLDER = re.compile(r"\{(\w+):(\d{1,3})\}")
_LITERAL = re.compile(r"[A-Za-z0-9_.+/=-]*")
_JWT_RANDOM = 43  # characters of base64url: 258 bits


def digest(token: str) -> bytes:
    """SHA-256 of a token. No salt or stretching is needed: it has at least 128 random bits."""
    return sha256(token.encode("utf-8", "surrogateescape")).digest()


def template_bits(template: str) -> float:
    """Random bits in a token of this template.

    Raises:
        ValueError: a placeholder is unknown, or a literal part has characters that a header or a file cannot carry.
    """
    if template == "jwt":
        return _JWT_RANDOM * 6.0
    bits = 0.0
    for kind, length in _PLACEHOLDER.findall(template):
        if kind not in ALPHABETS:
            raise ValueError(f"unknown placeholder {kind!r}; known: {', '.join(ALPHABETS)}")
        bits += int(length) * math.log2(len(ALPHABETS[kind]))
    if not _LITERAL.fullmatch(_PLACEHOLDER.sub("", template)):
        raise ValueError("a token template may have letters, digits and _.+/=- around its placeholders")
    return bits


def mint(template: str = DEFAULT_TEMPLATE, claims: Mapping[str, object] | None = None) -> str:
    """A new phantom token.

    Args:
        template: see the head of this file.
        claims: for `jwt` only: what the token's payload says.

    Raises:
        ValueError: the template is wrong or has fewer than 128 random bits.
    """
    bits = template_bits(template)
    if bits < RANDOM_BITS_MIN:
        raise ValueError(f"the template has {bits:.0f} random bits; it needs at least {RANDOM_BITS_MIN}")
    if template == "jwt":
        head = _base64url({"alg": "none", "typ": "JWT"})
        return f"{head}.{_base64url(dict(claims or {}))}.{_random('base64url', _JWT_RANDOM)}"
    return _PLACEHOLDER.sub(lambda match: _random(match[1], int(match[2])), template)


def _random(kind: str, length: int) -> str:
    import secrets  # 6 ms that a sidecar, which only needs `digest`, does not pay

    alphabet = ALPHABETS[kind]
    return "".join(secrets.choice(alphabet) for _ in range(length))


def _base64url(value: Mapping[str, object]) -> str:
    import base64

    data = json.dumps(value, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
