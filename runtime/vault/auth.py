"""`terok auth AGENT`: bring an agent's credential into the vault.

Three ways: a key that is typed; the credential file that the vendor's program left on this machine (`--import`); or the
vendor's own login, run in a throw-away container (`--login`), whose home directory lies in the runtime directory,
is read afterwards, and is deleted.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import sys
from typing import TYPE_CHECKING

from ...supervisor.ground import paste, process
from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import check_name
from ..kit.verb import argument, one_of, scope_option, switch, verb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...sidecars.roster.model import Agent
    from ..kit.env import Env

HOME = "/terok-home"
"""Where the login's container sees its home directory."""


@verb(
    argument("agent", metavar="AGENT", help="for example claude, codex, gh (see terok agents)", values="agents"),
    scope_option("the scope that gets the credential", required=True),
    argument("--provider", metavar="PROVIDER", help="which of the agent's providers", values="providers"),
    one_of(
        argument(
            "--import",
            dest="file",
            nargs="?",
            const="",
            metavar="FILE",
            help="the agent's own credential file",
            values="files",
        ),
        argument("--login", metavar="IMAGE", help="run the agent's login in a temporary container of this image"),
    ),
    switch("--replace", "replace an existing credential"),
    switch("--force", "store a key that looks like another provider's"),
    examples=("terok auth claude --scope work --import", "terok auth gh --scope work <token.txt"),
)
def run(args: argparse.Namespace, env: Env) -> int:
    """Store an agent's credential in the vault: a key that is typed (default), the agent's own file, or a new login."""
    check_name(args.scope)
    if args.login is not None:
        names = _login(args, env)
    elif args.file is not None:
        names = _import(args, env)
    else:
        names = _typed(args, env)
    env.out.emit({"agent": args.agent, "stored": names}, f"Stored: {', '.join(names)}")
    return Exit.OK


def _typed(args: argparse.Namespace, env: Env) -> list[str]:
    """Ask for a key."""
    from ...sidecars.store.credential import Credential
    from ..kit import opening, secret_input
    from .items import check_shape, provider_of, put

    name = args.provider or _agent(env, args.agent).providers[0]
    provider = provider_of(env, name)
    kind = next((candidate for candidate in ("api-key", "basic") if candidate in provider.auth), None)
    if kind is None:
        raise TerokError(
            f"{name} supports logins only, not keys.", fix="use --login IMAGE or --import", code=Exit.USAGE
        )
    if provider.custom:
        raise TerokError(
            f"{name} needs an upstream.",
            fix=paste.command("terok", "vault", "add", args.scope, name, "--upstream", "URL"),
            code=Exit.USAGE,
        )
    if provider.site and sys.stdin.isatty():
        env.note(f"Create a key at {provider.site}")
    credential = Credential(kind, secret_input.read(f"Key for {provider.title}"))
    check_shape(env, args, name, credential)
    with opening.unlocked(env, create=True) as store:
        put(store, args.scope, name, credential, {"source": "typed"}, replace=args.replace)
    return [f"{args.scope}/{name}"]


def _agent(env: Env, name: str) -> Agent:
    from ...sidecars.roster import files

    catalogue, warning = files.load(env.layout)
    if warning:
        env.note(warning)
    if name not in catalogue.agents:
        known = ", ".join(catalogue.agents)
        raise TerokError(f"There is no agent {name!r}.", fix=f"use one of: {known}", code=Exit.NOT_FOUND)
    return catalogue.agents[name]


def _import(args: argparse.Namespace, env: Env) -> list[str]:
    """Take the vendor's file: the one that was named, or the first that is in the operator's home."""
    from . import capture
    from .transfer import captures, store_captured

    home = env.environ.get("HOME", "/")
    paths = [args.file] if args.file else [os.path.join(home, source.file) for source in captures(env, args.agent)]
    failure: TerokError | None = None
    for path in dict.fromkeys(paths):
        try:
            text = capture.read_file(path)
        except TerokError as error:
            failure = failure or error
            continue
        return store_captured(env, args.agent, args.scope, text, path, replace=args.replace)
    assert failure is not None
    raise failure


def _login(args: argparse.Namespace, env: Env) -> list[str]:
    """Run the vendor's login and take what it left in its home directory."""
    from . import capture
    from .transfer import captures, store_captured

    known = [source for source in captures(env, args.agent) if source.command]
    if not known:
        raise TerokError(
            f"The roster has no login command for {args.agent}.", fix="enter a key instead", code=Exit.USAGE
        )
    chosen = known[0]
    home = env.layout.login_home(secrets.token_hex(8))
    os.makedirs(home, mode=0o700)
    try:
        if chosen.hint:
            env.note(chosen.hint)
        code = _run_container(env, args.login, chosen.command, chosen.environ, home)
        try:
            text = capture.read_file(chosen.file, beneath=home)
        except TerokError:
            raise TerokError(f"The login ended with exit code {code} and left no ~/{chosen.file}.") from None
        return store_captured(env, args.agent, args.scope, text, f"~/{chosen.file}", replace=args.replace)
    finally:
        shutil.rmtree(home)
        try:
            os.rmdir(os.path.dirname(home))
        except OSError:
            pass  # another login runs


def login_argv(
    podman: str, name: str, image: str, command: Sequence[str], environ: Mapping[str, str], home: str
) -> list[str]:
    """The podman command of a login: nothing of the host but an empty home directory.

    It runs as the container's root, which is the operator outside of it: the file must be theirs to read.
    """
    argv = [podman, "run", "--rm", "--name", name, "--interactive", "--user", "0:0", "--entrypoint", ""]
    argv += ["--cap-drop", "all", "--security-opt", "no-new-privileges"]
    argv += ["--volume", f"{home}:{HOME}:rw,Z", "--workdir", HOME]
    for key, value in {"HOME": HOME, **environ}.items():
        argv += ["--env", f"{key}={value}"]
    if sys.stdin.isatty():
        argv.append("--tty")
    return [*argv, image, *command]


def _run_container(env: Env, image: str, command: Sequence[str], environ: Mapping[str, str], home: str) -> int:
    """Run the login on this terminal; returns its exit code."""
    from ..host import podman

    program = podman.find(env.environ)
    name = f"terok-auth-{os.path.basename(home)}"
    argv = login_argv(program, name, image, command, environ, home)
    pid = process.spawn(argv, env=env.environ, fds={0: 0, 1: 2, 2: 2}, cwd=home)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except BaseException:
        podman.call(["rm", "--force", "--time", "0", "--", name], env.environ)
        raise
