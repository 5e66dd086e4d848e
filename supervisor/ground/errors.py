"""The one exception that carries a sentence for people, and the exit codes of every program."""

from __future__ import annotations


class Exit:
    """Exit codes, one vocabulary for all verbs (documented in terok(1))."""

    OK = 0
    FAILURE = 1  # what was asked for could not be done
    USAGE = 2  # the command line or a configuration file is wrong
    NOT_FOUND = 3  # no such container, scope, key or credential
    REFUSED = 4  # a policy forbids it
    MANUAL = 5  # a step is left that only the operator can take
    LOCKED = 6  # the vault is locked


class TerokError(Exception):
    """Something was attempted and failed, in words that a person can act on.

    Args:
        what: one sentence: what was attempted and why it failed. Never holds a secret.
        fix: the command or the change that helps; empty when there is none.
        code: the exit code of a program that ends with it (see `Exit`).
    """

    def __init__(self, what: str, *, fix: str = "", code: int = Exit.FAILURE) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix
        self.code = code

    def __str__(self) -> str:
        return f"{self.what} Fix: {self.fix}" if self.fix else self.what
