"""The process that refreshes logins for one vault process: forked before its confinement, asked over a socket pair.

The vault's process parses what the container sends; it may write nothing and must stay small. So it asks this helper,
which never sees a byte of the container's: a question is a scope, a provider's name and a version.

- The helper has its own Landlock: it reads the system, writes below the vault's directory, connects to the ports of
  the token endpoints. It waits in one recv(2) and wakes for questions only.
- Each question is answered by a child of its own, which imports httpx and ends. It has its own session and does not die
  with the container: an exchange that has begun is brought to its end (at most 40 s), or the login could be lost.
- The helper ends when the vault's process has ended.

    question  {"scope", "name", "version": null | the version that was answered with 401}
    answer    {"scope", "name", "version": of the credential that is valid now | null, "error": "" | why not, "fix": ""}
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from ...supervisor.ground import process
from ...supervisor.ground.errors import TerokError
from ...supervisor.ground.layout import package_root
from ..kit.confine import confine
from ..kit.proxy.egress import NO_PROXY, Egress
from ..roster import catalog
from ..store.light import sqlite3

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..roster.model import Provider

_MESSAGE_MAX = 8192
_TEXT_MAX = 1000
_DNS_PORT = 53
_SYSTEM = ("/usr", "/lib", "/lib64", "/etc", "/dev/urandom", "/proc/self/uid_map")


class Question(NamedTuple):
    """Whose login to refresh: when it is due, or, with a version, because that version was refused."""

    scope: str
    name: str
    version: int | None


class Answer(NamedTuple):
    """What the helper says; `version` is None when it could not refresh, and `error` and `fix` say why."""

    scope: str
    name: str
    version: int | None
    error: str
    fix: str


class Helper:
    """The vault process's end. Non-blocking: register `fileno()` for reading and call `receive` then.

    Args:
        ours: the connected socket.
        pid: the helper's process.
    """

    def __init__(self, ours: socket.socket, pid: int) -> None:
        self._socket, self.pid = ours, pid

    def __repr__(self) -> str:
        return f"Helper({self.pid})"

    @classmethod
    def start(
        cls, *, store: str, routes: str, key_files: Sequence[str], directory: str, way: Egress = NO_PROXY
    ) -> Helper:
        """Fork the helper. Call it before anything heavy is imported, any store opened and any thread started.

        Args:
            store: path of vault.db.
            routes: path of routes.json.
            key_files: where the data key may be.
            directory: where the slots of refreshes are (`layout.vault_refresh`).
            way: how token endpoints are reached.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        work = _Work(store, routes, list(key_files), directory, way)

        def body() -> int:
            os.setsid()
            process.reset_signals()
            _close_others(theirs.fileno())
            work.confine()
            return _serve(theirs, work)

        pid = process.fork(body)
        theirs.close()
        ours.setblocking(False)
        return cls(ours, pid)

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._socket.fileno()

    def ask(self, scope: str, name: str, *, version: int | None = None) -> bool:
        """Ask for a refresh: when it is due, or when `version` was refused.

        Returns:
            False when the helper is gone or has too many questions waiting.
        """
        question = json.dumps(Question(scope, name, version)._asdict()).encode()
        try:
            return self._socket.send(question) == len(question)
        except OSError:
            return False

    def receive(self) -> list[Answer] | None:
        """Every answer that has come; None when the helper is gone."""
        answers: list[Answer] = []
        while True:
            try:
                data = self._socket.recv(_MESSAGE_MAX)
            except BlockingIOError:
                return answers
            except OSError:
                return answers or None
            if not data:
                return answers or None
            answers.append(Answer(**json.loads(data)))

    def close(self) -> None:
        """Let the helper end; an exchange that has begun goes on to its end."""
        self._socket.close()


class _Work:
    """What the helper needs for its work."""

    def __init__(self, store: str, routes: str, key_files: list[str], directory: str, way: Egress) -> None:
        self.store, self.routes, self.key_files, self.directory = store, routes, key_files, directory
        self.way = way

    def confine(self) -> None:
        """Give up everything that an exchange does not need."""
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        os.makedirs(os.path.dirname(self.key_files[0]), mode=0o700, exist_ok=True)
        providers = catalog.load(self.routes).providers.values()
        bundles = [provider.ca_bundle for provider in providers if provider.ca_bundle]
        confine(
            read=[
                *_SYSTEM,
                *sys.path,
                package_root(),
                *_floors(),
                sys.prefix,
                sys.base_prefix,
                *bundles,
                *self.way.files,
                *self._keys(),
                *_resolver(),
            ],
            write=[os.path.dirname(self.store), self.directory],
            connect_ports=_ports(providers) | set(self.way.ports),
        )

    def _keys(self) -> list[str]:
        return [os.path.dirname(path) for path in self.key_files]

    def answer(self, question: Question) -> Answer:
        """Refresh one credential."""
        from ..store import keys, proxy
        from ..store.store import Store
        from .exchange import send
        from .refresh import refresh
        from .slot import Slot

        scope, name, version = question
        try:
            with Store.open(self.store) as store, Slot(self.directory, scope, name) as slot:
                keys.ensure_unlocked(store, self.key_files)
                meta = next((entry.meta for entry in store.describe("credential", scope) if entry.name == name), {})
                known = catalog.load(self.routes).provider(name)
                if known is None:
                    return _failed(question, f"There is no provider {name}.", "terok vault routes")
                provider = catalog.effective(known, meta)
                credential = proxy.reader(store, self.key_files, self.way.authority)
                item = refresh(
                    store,
                    slot,
                    provider,
                    lambda exchange: send(exchange, self.way, credential),
                    stale=version,
                    clock=time.time,
                )
                return Answer(scope, name, item.version, "", "")
        except TerokError as error:
            return _failed(question, error.what, error.fix)
        except (OSError, ImportError, sqlite3.Error) as error:
            return _failed(question, f"The login could not be refreshed: {error}")


def _serve(connection: socket.socket, work: _Work) -> int:
    """Answer questions until the vault's process is gone. A child that dies without an answer is answered for."""
    waiting = select.poll()
    waiting.register(connection, select.POLLIN)
    children: dict[int, tuple[int, Question]] = {}
    while True:
        for fd, _ in waiting.poll():
            if fd in children:
                waiting.unregister(fd)
                os.close(fd)
                pid, question = children.pop(fd)
                if os.waitpid(pid, 0)[1] != 0:
                    _send(connection, _failed(question, "The process that refreshed the login was killed."))
                continue
            data = connection.recv(_MESSAGE_MAX)
            if not data:
                return 0
            question = Question(**json.loads(data))
            pid = _start(connection, work, question)
            child = process.pidfd(pid)
            children[child] = (pid, question)
            waiting.register(child, select.POLLIN)


def _start(connection: socket.socket, work: _Work, question: Question) -> int:
    """Answer one question in a child; returns its pid."""
    return process.fork(lambda: _send(connection, work.answer(question)))


def _send(connection: socket.socket, answer: Answer) -> int:
    """Tell the vault's process; it may be gone, and the credential is in the store then."""
    try:
        connection.send(json.dumps(answer._asdict()).encode(), socket.MSG_NOSIGNAL)
    except OSError:
        pass
    return 0


def _failed(question: Question, error: str, fix: str = "") -> Answer:
    return Answer(question.scope, question.name, None, error[:_TEXT_MAX], fix[:_TEXT_MAX])


def _close_others(keep: int) -> None:
    """Close every inherited descriptor: the container's listening sockets must not live on here."""
    os.closerange(3, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))


def _floors() -> list[str]:
    """Where the floors really are: in a working copy the package is a directory of links, and Landlock sees targets."""
    return [os.path.realpath(f"{package_root()}/{floor}") for floor in ("sidecars", "supervisor")]


def _resolver() -> list[str]:
    """Where the resolver's files really are: /etc/resolv.conf is a link on most systems."""
    return [os.path.dirname(os.path.realpath("/etc/resolv.conf"))]


def _ports(providers: Iterable[Provider]) -> set[int]:
    urls = [urlsplit(provider.refresh.url) for provider in providers if provider.refresh]
    return {_DNS_PORT, 443} | {url.port or (443 if url.scheme == "https" else 80) for url in urls}
