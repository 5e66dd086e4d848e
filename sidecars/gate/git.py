"""How git is run: a clean environment, no configuration but terok's, no hooks, no prompts.

A mirror's own config file is written by `terok gate` alone, no process that reads a container's bytes can write it;
and what a repository's config could do is overridden here all the same: command-line scope wins over it.
"""

from __future__ import annotations

import glob
import os
import re

from ...supervisor.ground import kernel, process
from ...supervisor.ground.errors import TerokError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...supervisor.ground.layout import GateHome
    from .config import Limits

HIDDEN = "refs/terok/"
"""Below this: what no container sees."""

_EXEC_PATHS = ("/usr/lib/git-core", "/usr/libexec/git-core", "/usr/local/libexec/git-core", "/usr/local/lib/git-core")
_LOADERS = ("/lib64/ld-linux*", "/lib/ld-linux*", "/lib/ld-musl*", "/lib/*/ld-linux*", "/lib64/ld64*")

_ALWAYS = (
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.pager", "cat"),
    ("core.attributesFile", "/dev/null"),
    ("credential.helper", ""),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("receive.autogc", "false"),
    ("protocol.allow", "never"),
    ("submodule.recurse", "false"),
    ("log.showSignature", "false"),
)
_BENIGN_FSCK = (
    "zeroPaddedFilemode",
    "missingSpaceBeforeDate",
    "badTimezone",
    "zeroPaddedDate",
    "missingSpaceBeforeEmail",
)
"""Flaws that old, honest histories have; every other finding of fsck refuses the pack."""


def environment(config: Iterable[tuple[str, str]] = (), **variables: str) -> dict[str, str]:
    """The whole environment of a git process.

    Args:
        config: pairs on top of what every git process gets; later ones win.
        variables: further variables.
    """
    env = {
        **process.CLEAN_ENV,
        "LC_ALL": "C.UTF-8",
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        **variables,
    }
    pairs = [*_ALWAYS, *config]
    env["GIT_CONFIG_COUNT"] = str(len(pairs))
    for number, (key, value) in enumerate(pairs):
        env[f"GIT_CONFIG_KEY_{number}"], env[f"GIT_CONFIG_VALUE_{number}"] = key, value
    return env


def confine(home: GateHome) -> None:
    """Confine a git process that reads a mirror's objects: the mirror, git's own files, no network."""
    read, execute = grants()
    kernel.landlock(read=read, write=[home.repo, "/dev/null"], execute=execute, connect_ports=())


def run(home: GateHome, *arguments: str, stdin: bytes = b"", timeout: float = 120.0) -> process.Result:
    """Run git in a scope's mirror, confined to it and without any network.

    Raises:
        TerokError: it could not be started, or did not end in time. A failure of git itself is in the result.
    """
    env = environment([("safe.directory", home.repo)], GIT_DIR=home.repo)
    return process.run([program(), *arguments], stdin=stdin, timeout=timeout, env=env, prepare=lambda: confine(home))


def check(home: GateHome, *arguments: str, stdin: bytes = b"", timeout: float = 120.0) -> bytes:
    """`run`, and its output; a failure is a TerokError with git's first line."""
    result = run(home, *arguments, stdin=stdin, timeout=timeout)
    if result.code:
        raise TerokError(f"git {arguments[0]} failed in the mirror of {home.scope}: {result.error}.")
    return result.out


def program() -> str:
    """Absolute path of git; TerokError when it is not installed."""
    path = process.find("git")
    if path is None:
        raise TerokError("The program git is not installed.", fix="install the package git")
    return path


def exec_path() -> str:
    """Where git's own programs are (git --exec-path)."""
    for path in _EXEC_PATHS:
        if os.path.exists(f"{path}/git-http-backend"):
            return path
    path = process.run([program(), "--exec-path"], timeout=10).out.decode().strip()
    if not os.path.exists(f"{path}/git-http-backend"):
        raise TerokError(f"git http-backend is not in {path}.", fix="install git with its HTTP server part")
    return path


def decodes_proxy_logins() -> bool:
    """Whether the libcurl that git loads decodes percent escapes in a proxy's user and password: before 8.8 it does.

    git hands both over as they are (CURLOPT_PROXYUSERNAME(3)), and no command of Debian's git names libcurl's version.
    """
    listed = process.run([process.find("ldd") or "ldd", f"{exec_path()}/git-remote-https"], timeout=10).out.decode()
    library = next((word for word in listed.split() if word.startswith("/") and "libcurl" in word), "")
    try:
        with open(library, "rb") as file:
            version = re.search(rb"libcurl/(\d+)\.(\d+)", file.read())
    except OSError:
        version = None
    return version is not None and (int(version[1]), int(version[2])) < (8, 8)


def grants() -> tuple[list[str], list[str]]:
    """What a confined process needs to run git: (readable, executable) paths."""
    loaders = [os.path.realpath(path) for pattern in _LOADERS for path in glob.glob(pattern)]
    read = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/locale", "/etc/ld.so.cache"]
    read += ["/etc/passwd", "/etc/localtime", "/dev/urandom", "/dev/random"]
    return read, [exec_path(), os.path.realpath(program()), program(), *loaders]


def serving_config(home: GateHome, limits: Limits) -> list[tuple[str, str]]:
    """Configuration of the git processes that read a container's bytes."""
    pairs = [
        ("safe.directory", home.repo),
        ("http.getanyfile", "false"),
        ("http.receivepack", "true"),
        ("transfer.hideRefs", HIDDEN.rstrip("/")),
        ("uploadpack.allowFilter", "true"),
        # a partial clone asks for single objects by name; in protocol 2 git answers these anyway
        ("uploadpack.allowAnySHA1InWant", "true"),
        ("receive.advertiseAtomic", "true"),
        ("receive.advertisePushOptions", "false"),
        ("receive.maxInputSize", str(limits.pack_bytes)),
        ("receive.fsckObjects", "true"),
        ("core.packedGitWindowSize", "64m"),
        ("core.packedGitLimit", "1g"),
        # above this an object is streamed, not held in memory
        ("core.bigFileThreshold", "64m"),
        ("pack.windowMemory", "128m"),
        ("pack.deltaCacheSize", "64m"),
    ]
    return pairs + [(f"receive.fsck.{finding}", "ignore") for finding in _BENIGN_FSCK]


def backend_variables(project_root: str, path: str, method: str, query: str, content_type: str) -> dict[str, str]:
    """CGI variables of git-http-backend(1)."""
    return {
        "PATH": f"{exec_path()}:{process.PATH}",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "GIT_HTTP_EXPORT_ALL": "1",
        "GIT_PROJECT_ROOT": project_root,
        "PATH_INFO": path,
        "REQUEST_METHOD": method,
        "QUERY_STRING": query,
        "CONTENT_TYPE": content_type,
        "REMOTE_ADDR": "container",
    }
