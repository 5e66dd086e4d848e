"""Keyrings for tests, chosen by PYTHON_KEYRING_BACKEND: one that works, one that hangs, one that refuses."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked


class FileKeyring(KeyringBackend):
    """Keeps its passwords in the file that TEST_KEYRING_FILE names."""

    priority = 1

    def _load(self) -> dict[str, str]:
        path = Path(os.environ["TEST_KEYRING_FILE"])
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def _save(self, passwords: dict[str, str]) -> None:
        Path(os.environ["TEST_KEYRING_FILE"]).write_text(json.dumps(passwords))

    def get_password(self, service: str, username: str) -> str | None:
        return self._load().get(f"{service}/{username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        self._save({**self._load(), f"{service}/{username}": password})

    def delete_password(self, service: str, username: str) -> None:
        passwords = self._load()
        del passwords[f"{service}/{username}"]
        self._save(passwords)


class HangingKeyring(FileKeyring):
    """Waits for somebody who never answers its dialogue."""

    def get_password(self, service: str, username: str) -> str | None:
        signal.pause()
        return None


class ClosedKeyring(FileKeyring):
    """Says no."""

    def get_password(self, service: str, username: str) -> str | None:
        raise KeyringLocked("the keyring is closed")
