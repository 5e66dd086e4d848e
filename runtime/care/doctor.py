"""`terok doctor`: runs every check, names the one cause to fix first, and fixes what is safe with --fix."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from ...supervisor.ground.errors import Exit
from ..host import selinux
from ..kit import check
from ..kit.env import Env
from ..kit.verb import switch, verb
from . import checks, doctor_checks, leftovers, setup

FIXES: dict[str, Callable[[Env], list[str]]] = {
    "hooks": setup.install,
    "stale bundles": doctor_checks.remove_stale,
    "orphaned processes": doctor_checks.end_orphans,
    "runtime directories": leftovers.remove,
}
"""What --fix does, by the check's name: nothing that loses a secret, stops a container or needs another user."""


ADVICE = frozenset({"protection"})
"""Checks that say how something could be better while nothing is wrong: reported, never the cause."""


@verb(
    switch(
        "--fix", "repair what is safe to repair: hooks, state of removed containers, orphaned processes and directories"
    ),
    exits=((0, "nothing is wrong"), (1, "something is wrong"), (5, "something is wrong that only you can fix")),
)
def run(args: argparse.Namespace, env: Env) -> int:
    """Check the host, the hooks, the vault and what containers left behind, and name the one cause to fix first."""
    results = examine(env)
    done: list[str] = []
    if args.fix:
        for result in results:
            if result.state != check.OK and result.what in FIXES:
                done += FIXES[result.what](env)
        results = examine(env) if done else results
    cause = first_cause(results)
    lines = [*done, *([""] if done else []), *checks.render(results, env.out), "", _verdict(cause, env)]
    data = {
        "done": done,
        "checks": [result.to_dict() for result in results],
        "cause": cause.to_dict() if cause else None,
    }
    env.out.emit(data, "\n".join(lines))
    if cause is None or cause.state == check.WARN:
        return Exit.OK
    return Exit.FAILURE if cause.what in FIXES else Exit.MANUAL


def examine(env: Env) -> list[check.Check]:
    """The results of all checks: the host's first, because what comes later follows from it."""
    with env.slow("Looking at the host, the vault and the containers"):
        confined = selinux.block(env)
        return [
            *checks.run_all(env),
            *(confined.checks() if confined else []),
            *(result for check in doctor_checks.CHECKS for result in check(env)),
        ]


def first_cause(results: list[check.Check]) -> check.Check | None:
    """The first failure, else the first warning: checks stand in the order in which one causes the next."""
    for state in (check.FAIL, check.WARN):
        cause = next((result for result in results if result.state == state and result.what not in ADVICE), None)
        if cause:
            return cause
    return None


def _verdict(cause: check.Check | None, env: Env) -> str:
    if cause is None:
        return "Nothing is wrong."
    fix = f"\n  fix: {cause.fix}" if cause.fix else ""
    colour = "bad" if cause.state == check.FAIL else "warning"
    return f"{env.out.paint('Cause', colour)}: {cause.what}: {cause.detail}{fix}"
