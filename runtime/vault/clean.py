"""`terok vault clean`: credentials that leaked into directories which containers mount.

Looks for the credential files of every agent in the roster, and for the vault's own secrets in whatever file. Files
that hold nothing but phantom tokens are as they should be, and not shown.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

from ...sidecars.roster import files
from ...sidecars.store.credential import KIND, secrets_of
from ...sidecars.store.records import LockedError
from ...sidecars.store.tokens import digest
from ...supervisor.ground.errors import Exit, TerokError
from ..host import podman
from ..kit import opening
from ..kit.alive import containers
from ..kit.verb import argument, scope_option, switch, verb
from . import capture
from .leaks import Found, Scan, delete
from .transfer import store_captured

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Mapping

    from ...sidecars.roster.model import Agent
    from ..kit.env import Env

_WORD = re.compile(r"[A-Za-z0-9_.~+/-]{20,512}")
"""What a token may look like in a file whose form the roster does not describe."""


@verb(
    argument(
        "paths", metavar="DIR", nargs="*", help="where to look (default: what containers mount)", values="directories"
    ),
    scope_option("store what is found in this scope", "--import", dest="take"),
    switch("--yes", "delete what is found"),
)
def run_clean(args: argparse.Namespace, env: Env) -> int:
    """Find credentials that leaked into mounted directories."""
    catalogue, _ = files.load(env.layout)
    agents = catalogue.agents
    roots = [os.path.abspath(path) for path in args.paths] or mounted(env)
    own = [os.path.realpath(path) for path in (env.layout.data, env.layout.runtime)]
    for path in args.paths:
        if not os.path.isdir(path):
            raise TerokError(f"{path} is not a directory.", code=Exit.USAGE)
        if _within(os.path.realpath(path), own):
            raise TerokError(f"{path} belongs to terok, which keeps its own files there.", code=Exit.REFUSED)
    scan = Scan(_names(agents), _secrets(env), skip=own)
    suspects = [file for root in _outermost(roots) for file in scan.walk(root)]
    phantom = _phantoms(env)
    real = [file for file in suspects if file.secrets or not _only_phantoms(phantom, agents, file)]
    imported = _import(args.take, env, real) if args.take else {}
    deleted = [file for file in real if args.yes and delete(file)]
    _tell(env, roots, scan, real, imported, deleted)
    return Exit.OK if len(deleted) == len(real) else Exit.MANUAL


def mounted(env: Env) -> list[str]:
    """Host directories that terok's containers mount, as podman knows them; without those that terok itself mounts."""
    own = [os.path.realpath(path) for path in (env.layout.data, env.layout.runtime)]
    sources: dict[str, None] = {}
    for name in containers(env.layout):
        words = ["inspect", "--type", "container", "--format", "{{json .Mounts}}", "--", name]
        result = podman.call(words, env.environ)
        if result.code != 0:
            continue  # its wiring is there, the container is not (any more)
        for mount in json.loads(result.out):
            source = mount.get("Source", "")
            if os.path.isdir(source) and not _within(os.path.realpath(source), own):
                sources[source] = None
    return list(sources)


def _within(path: str, directories: Iterable[str]) -> bool:
    return any(f"{path}/".startswith(f"{directory}/") for directory in directories)


def _outermost(roots: Iterable[str]) -> list[str]:
    """The directories without those that lie in another one."""
    kept: list[str] = []
    for root in sorted({os.path.realpath(path) for path in roots}):
        if not _within(root, (other.rstrip("/") for other in kept)):
            kept.append(root)
    return kept


def _names(agents: Mapping[str, Agent]) -> dict[str, tuple[str, ...]]:
    owners: dict[str, tuple[str, ...]] = {}
    for name, agent in agents.items():
        for path in {*agent.leaks, *(place.file for place in agent.capture)}:
            owners[path] = (*owners.get(path, ()), name)
    return owners


def _secrets(env: Env) -> dict[str, list[bytes]]:
    """Every secret of the vault; none, with a note, when it is locked."""
    if not opening.exists(env):
        return {}
    try:
        with opening.unlocked(env) as store:
            items = [store.get(KIND, entry.scope, entry.name) for entry in store.describe(KIND)]
            return {f"{item.scope}/{item.name}": secrets_of(item) for item in items if item is not None}
    except LockedError as error:
        env.note(f"Only file names are checked, not contents: {error}")
        return {}


def _phantoms(env: Env) -> Callable[[str], bool]:
    """Tells whether a text is a phantom token of some container."""
    if not opening.exists(env):
        return lambda token: False
    with opening.closed(env) as store:
        digests = store.token_digests()
    return lambda token: digest(token) in digests


def _only_phantoms(phantom: Callable[[str], bool], agents: Mapping[str, Agent], file: Found) -> bool:
    """Whether a credential file holds no credential, or a phantom token."""
    captures = [source for name in file.agents for source in agents[name].capture if file.path.endswith(source.file)]
    if not captures:
        return any(phantom(word) for word in _WORD.findall(file.text))
    for source in captures:
        try:
            made, _ = capture.read(source, file.text, file.path)
        except TerokError:
            continue
        if not phantom(made.secret):
            return False
    return True


def _import(scope: str, env: Env, files: list[Found]) -> dict[str, list[str]]:
    """Take what the roster can read into a scope; returns path -> what was stored."""
    done: dict[str, list[str]] = {}
    for file in files:
        path = os.path.join(file.root, file.path)
        for agent in file.agents:
            try:
                done[path] = store_captured(env, agent, scope, file.text, path, replace=False)
                break
            except TerokError as error:
                env.note(f"{path}: not imported: {error.what}")
    return done


def _tell(
    env: Env, roots: list[str], scan: Scan, real: list[Found], imported: dict[str, list[str]], deleted: list[Found]
) -> None:
    report = []
    lines = []
    for file in real:
        path = os.path.join(file.root, file.path)
        gone = file in deleted
        why = [f"credential file of {name}" for name in file.agents]
        why += [f"has the secret {label}" for label in file.secrets]
        lines.append(f"{'deleted ' if gone else ''}{path}: {'; '.join(why)}")
        known = {"agents": list(file.agents), "secrets": list(file.secrets)}
        report.append({"path": path, **known, "imported": imported.get(path, []), "deleted": gone})
    if not real:
        lines.append(f"Nothing found in {len(roots)} directories with {scan.files} files.")
    data = {"directories": roots, "files": scan.files, "found": report, "unreadable": scan.unreadable}
    env.out.emit(data, "\n".join(lines))
    if scan.unreadable:
        env.note(f"{len(scan.unreadable)} files could not be read; try: podman unshare terok vault clean")
    for path in scan.cut:
        env.note(f"{path}: only its beginning was searched.")
    if len(deleted) < len(real):
        env.note("Import them into the vault: terok vault clean --import SCOPE. Delete them: terok vault clean --yes")
