"""SQLite and SHA-256 for processes that one container has for itself: without what their packages bring along.

`sqlite3` imports `datetime` for its old adapters, and `hashlib` loads OpenSSL a second time, beside the one in
`cryptography`. Both are made of these modules; where an interpreter lacks one, the ordinary module serves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from hashlib import sha256
else:
    try:
        import _sqlite3 as sqlite3
    except ImportError:
        import sqlite3
    try:
        from _sha2 import sha256
    except ImportError:
        try:
            from _sha256 import sha256
        except ImportError:
            from hashlib import sha256

__all__ = ["sha256", "sqlite3"]
"""`sha256` as in `hashlib`; `sqlite3` with its functions and errors, without row types and adapters."""
