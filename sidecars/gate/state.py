"""state.json: a scope's open proposals and what the last synchronisation saw; changed only under the scope's lock."""

from __future__ import annotations

import fcntl
import json
import os
import time
from typing import NamedTuple

from ..kit.audit import Audit
from .config import write_json
from .policy import own_prefix
from .refs import PROPOSALS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...supervisor.ground.layout import GateHome
    from .refs import Change

CONTAINER, OPERATOR = "container", "operator"
UPSTREAM = "upstream"
"""`Proposal.source` when upstream itself moved in a way that the mirror does not follow by itself."""


class Proposal(NamedTuple):
    """One ref change that waits for `approve` or `reject`.

    number: what the operator calls it.
    source: `CONTAINER`, `OPERATOR` (who restored a tip) or `UPSTREAM`.
    who: the container's name; "" for the others.
    ref: full name.
    kind: create, update, force or delete.
    old: what upstream (for a container's) or the mirror (for upstream's) has; zeros: nothing.
    new: the proposed tip; zeros: delete.
    created: seconds since the epoch.
    """

    number: int
    source: str
    who: str
    ref: str
    kind: str
    old: str
    new: str
    created: float

    def to_dict(self) -> dict[str, object]:
        """As it stands in state.json, and in `--json` output."""
        return self._asdict()


class State:
    """Holds the scope's lock from `with State(home) as state:` to the end; `save` writes what was changed.

    Attributes:
        proposals: by number.
        synced: when upstream was last asked with success, seconds since the epoch; 0: never.
        tried: when upstream was last asked at all.
        error: why the last try failed; "" when it did not.
        declined: upstream's refs whose new tip was rejected: ref -> tip. It is not proposed again.
    """

    def __init__(self, home: GateHome) -> None:
        self._home = home
        self._fd = -1
        self._read({})

    def __enter__(self) -> State:
        self._fd = os.open(self._home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        self._read(_load(self._home))
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    @classmethod
    def peek(cls, home: GateHome) -> State:
        """What the file says, without the lock; not to be saved."""
        state = cls(home)
        state._read(_load(home))
        return state

    def _read(self, data: dict[str, Any]) -> None:
        self.proposals = {int(document["number"]): Proposal(**document) for document in data.get("proposals", [])}
        self.synced = float(data.get("synced", 0))
        self.tried = float(data.get("tried", 0))
        self.error = str(data.get("error", ""))
        self.declined: dict[str, str] = dict(data.get("declined", {}))
        self._next = int(data.get("next", 1))

    def save(self) -> None:
        """Write the file, whole or not at all."""
        proposals = [proposal.to_dict() for _, proposal in sorted(self.proposals.items())]
        write_json(
            self._home.state,
            {"next": self._next, "proposals": proposals, "synced": self.synced, "tried": self.tried}
            | {"error": self.error, "declined": self.declined},
        )

    def undo(self) -> None:
        """Forget what was changed since the last `save`."""
        self._read(_load(self._home))

    def of(self, source: str, who: str, ref: str) -> Proposal | None:
        """The open proposal of one container (or upstream) for one ref."""
        proposals = (
            proposal
            for proposal in self.proposals.values()
            if (proposal.source, proposal.who, proposal.ref) == (source, who, ref)
        )
        return next(proposals, None)

    def propose(self, source: str, who: str, ref: str, kind: str, old: str, new: str, change: Change) -> Proposal:
        """Add a proposal in place of the same source's earlier one for this ref.

        It always gets a number of its own: who approves a number approves what was shown under it.
        """
        self.drop(self.of(source, who, ref), change)
        proposal = Proposal(self._next, source, who, ref, kind, old, new, time.time())
        self._next += 1
        self.proposals[proposal.number] = proposal
        if new.strip("0"):
            change.set(f"{PROPOSALS}{proposal.number}", new, "0" * len(new))
        return proposal

    def drop(self, proposal: Proposal | None, change: Change) -> None:
        """Remove a proposal and, with `change`, the ref that holds its tip."""
        if proposal is not None:
            del self.proposals[proposal.number]
            if proposal.new.strip("0"):
                change.set(f"{PROPOSALS}{proposal.number}", "0" * len(proposal.new))


def overlay(home: GateHome, container: str, mode: str) -> dict[str, str]:
    """Refs that one container sees with its own proposed tips, zeros for a proposed deletion.

    These are proposals for refs that others use too. Without this a container would see its push vanish at the next
    fetch, and `git pull --rebase` would take its commits for ones that upstream has dropped (git-merge-base(1),
    DISCUSSION ON FORK-POINT MODE). Its own branches need none: their proposed tips are in the view.
    """
    if mode != "gatekeeping":
        return {}
    mine = (
        proposal
        for proposal in State.peek(home).proposals.values()
        if (proposal.source, proposal.who) == (CONTAINER, container)
    )
    return {proposal.ref: proposal.new for proposal in mine if not proposal.ref.startswith(own_prefix(container))}


def _load(home: GateHome) -> dict[str, object]:
    try:
        with open(home.state, "rb") as file:
            data: dict[str, object] = json.load(file)
            return data
    except FileNotFoundError:
        return {}


def log(home: GateHome, event: str, **fields: object) -> None:
    """Append a line to the scope's own log, which outlives its containers (`terok gate log`)."""
    Audit(home.log, "gate").write(event, **fields)
