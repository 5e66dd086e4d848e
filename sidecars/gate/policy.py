"""Which refs a container may change, decided from the commands of its push. Pure.

A scope's policy has four lists of patterns: create, update (fast-forward), force (not a fast-forward) and delete.
`*` stands for any characters, `{container}` for the container's name. Two kinds of refs are protected besides: tags
are never moved or deleted, and the default branch is never forced or deleted and only changed when a pattern names
it in full: a `*` does not mean it.
"""

from __future__ import annotations

from typing import NamedTuple

from .pktline import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

KINDS = ("create", "update", "force", "delete")
OWN = "refs/heads/{container}/*"
"""The default: a container's own branches."""

HEADS, TAGS = "refs/heads/", "refs/tags/"


class Policy(NamedTuple):
    """Patterns for each kind of change, and whether tags and the default branch are protected."""

    create: tuple[str, ...] = (OWN,)
    update: tuple[str, ...] = (OWN,)
    force: tuple[str, ...] = (OWN,)
    delete: tuple[str, ...] = (OWN,)
    protect: bool = True

    def patterns(self, kind: str) -> tuple[str, ...]:
        """The patterns of one of `KINDS`."""
        chosen: tuple[str, ...] = getattr(self, kind)
        return chosen

    def to_dict(self) -> dict[str, object]:
        """As it stands in gate.json."""
        return {**{kind: list(self.patterns(kind)) for kind in KINDS}, "protect": self.protect}

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Policy:
        """Read it from gate.json.

        Raises:
            ValueError: a key is unknown, or a value has the wrong type.
        """
        values: dict[str, Any] = {}
        for key, value in data.items():
            if key == "protect" and isinstance(value, bool):
                values[key] = value
            elif key in KINDS and isinstance(value, list) and all(isinstance(item, str) for item in value):
                values[key] = tuple(value)
            else:
                raise ValueError(f"policy.{key} is unknown or has the wrong type")
        return cls(**values)


def own_prefix(container: str) -> str:
    """Where a container's own branches are."""
    return f"{HEADS}{container}/"


def matches(pattern: str, ref: str, container: str) -> bool:
    """Whether a pattern covers a ref."""
    parts = pattern.replace("{container}", container).split("*")
    if len(parts) == 1:
        return parts[0] == ref
    first, *middle, last = parts
    if not ref.startswith(first):
        return False
    at = len(first)
    for part in middle:
        place = ref.find(part, at)
        if place < 0:
            return False
        at = place + len(part)
    return len(ref) - at >= len(last) and ref.endswith(last)


def against_view(command: Command, overlay: Mapping[str, str], view: Mapping[str, str]) -> Command:
    """The command as it looks from upstream's side.

    Where a container amends its own open proposal, what counts is what becomes of the ref that others see, not how
    the two proposals relate. A command that then neither creates nor deletes anything takes a proposal back.
    """
    if command.ref not in overlay:
        return command
    return command._replace(old=view.get(command.ref, "0" * len(command.old)))


class Judge:
    """Decides for one container.

    Args:
        policy: the scope's policy.
        container: who pushes.
        default_branch: full ref name of upstream's default branch.
    """

    def __init__(self, policy: Policy, container: str, default_branch: str) -> None:
        self.policy, self.container, self.default_branch = policy, container, default_branch

    def before_pack(self, command: Command) -> str:
        """Why the command is refused whatever the pack holds; "" when that remains to be seen.

        An update may turn out to be a fast-forward or not: it passes when either is allowed.
        """
        if command.creates:
            return self.refusal("create", command.ref)
        if command.deletes:
            return self.refusal("delete", command.ref)
        reason = self.refusal("update", command.ref)
        return reason if reason and self.refusal("force", command.ref) else ""

    def refusal(self, kind: str, ref: str) -> str:
        """Why a change of this kind is refused; "" when it is allowed."""
        if not ref.startswith((HEADS, TAGS)):
            return "this gate keeps branches and tags only"
        patterns = self.policy.patterns(kind)
        allowed = [pattern for pattern in patterns if matches(pattern, ref, self.container)]
        if self.policy.protect:
            if ref.startswith(TAGS) and kind != "create":
                return f"tags are protected: {kind} refused"
            if ref == self.default_branch:
                if kind in ("force", "delete"):
                    return f"the default branch is protected: {kind} refused"
                # a wildcard such as refs/heads/* was not written with the default branch in mind: it has to be named
                allowed = [pattern for pattern in allowed if pattern == ref]
        if allowed:
            return ""
        what = "not a fast-forward, and force" if kind == "force" else kind
        if not patterns:
            return f"{what} is not allowed by this scope's policy"
        shown = ", ".join(pattern.replace("{container}", self.container) for pattern in patterns[:3])
        return f"{what} is allowed for {shown} only"
