"""What the shield's verbs tell people about a target: where it leads, on which ports, and why; the table of rules."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...sidecars.kit import addresses
from ...sidecars.shield import bundle as files
from ...sidecars.shield import static
from ...sidecars.shield.dnsmasq import line_of
from ...sidecars.shield.live import Running
from ...sidecars.shield.model import Model, taught_set
from ...sidecars.shield.state import State
from ...sidecars.shield.targets import NAME, WEB, Ports, Target
from ...supervisor.ground.layout import Bundle
from ...supervisor.wall import firewall
from ..kit.audit_lines import read as read_log
from ..kit.table import table

if TYPE_CHECKING:
    from ...supervisor.wall.firewall import Set
    from ..kit.env import Output

ADDRESSES_SHOWN = 2
HEADER = ("DESTINATION", "PORTS", "WHY", "ADDRESSES", "PACKETS")


def ports_text(ports: Ports) -> str:
    """`TCP 80, 443`, `TCP 22`, `UDP 5000-5010`."""
    if ports == WEB:
        return "TCP 80, 443"
    return f"{ports.protocol.upper()} {ports.low}" + (f"-{ports.high}" if ports.high != ports.low else "")


def where(target: Target, answers: Mapping[str, Sequence[str]], model: Model) -> str:
    """A target with what its name resolves to now; pure.

    Args:
        target: what was allowed.
        answers: addresses by name.
        model: the policy, which may open a special address.
    """
    if target.kind != NAME:
        return str(target)
    resolved = answers.get(target.value, ())
    usable = [address for address in resolved if static.usable(model, address)]
    if usable:
        return f"{target} -> {_some(usable)}"
    if resolved:
        kind = "never reachable" if addresses.kind(resolved[0]) == addresses.NEVER_OPENED else "private"
        return f"{target} -> {_some(resolved)} ({kind}: a name does not open it)"
    return f"{target} (does not resolve now)"


def _some(addresses: Sequence[str]) -> str:
    rest = len(addresses) - ADDRESSES_SHOWN
    return ", ".join(addresses[:ADDRESSES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def allowed_text(targets: Sequence[Target], container: str, model: Model) -> str:
    """The sentence of `allow`: `Allowed example.com -> 203.0.113.7 for box: TCP 80, 443; add :PORT for others`."""
    names = [target.value for target in targets if target.kind == NAME]
    answers = static.lookup(names) if names else {}
    lines = []
    for target in targets:
        ports = ports_text(target.ports) + ("; add :PORT for others" if target.ports == WEB else "")
        lines.append(f"Allowed {where(target, answers, model)} for {container}: {ports}")
    return "\n".join(lines)


class Row(NamedTuple):
    """One line of the table of rules."""

    destination: str
    ports: str
    why: str
    addresses: tuple[str, ...]
    packets: int


def rows(state: State, sets: Mapping[str, Set], packets: Mapping[str, int], now: float) -> list[Row]:
    """The table of rules; pure.

    Args:
        state: the container's shield.
        sets: the sets of its firewall, as `firewall.observe` gives them; empty when it does not run.
        packets: how many packets the audit log has for a name or an address.
        now: Unix time.
    """
    passing = dict(state.passing)
    table = [_denied(target, packets) for target in state.model.denied]
    table += [Row(name, "TCP", "brokered", (address,), packets.get(name, 0)) for name, address in state.model.brokered]
    for target in state.model.allowed:
        until = passing.get(target)
        why = "profile" if target in state.base else "allow"
        if until is not None:
            why = f"allow, {max(0, round(until - now))} s more"
        known = _addresses(state, target, sets)
        counted = packets.get(target.value, 0) if target.is_name else sum(packets.get(address, 0) for address in known)
        name = f"*.{target.value}" if target.kind not in (NAME,) and target.is_name else target.value
        table.append(Row(name, ports_text(target.ports), why, known, counted))
    return table


def _denied(target: Target, packets: Mapping[str, int]) -> Row:
    name = str(target).removesuffix(target.ports.suffix) if target.ports != WEB else str(target)
    ports = "every port" if target.ports == WEB else ports_text(target.ports)
    return Row(name, ports, "deny", (), packets.get(target.value, 0))


def _addresses(state: State, target: Target, sets: Mapping[str, Set]) -> tuple[str, ...]:
    if not target.is_name:
        return (target.value,)
    if state.addresses is not None:
        return tuple(filter(None, [state.addresses.get(str(target).removesuffix(target.ports.suffix))]))
    if target.value in (led := state.model.led()) and target.kind == NAME:
        return (led[target.value],)
    if not state.has_dnsmasq:
        return tuple(state.hosts.get(target.value, ()))
    line = line_of(target.value, state.lines)
    learned = (sets[name]["elem"] for name in (taught_set(line, 4), taught_set(line, 6)) if name in sets)
    return tuple(str(address) for part in learned for address in part)


def counted(entries: Iterable[Mapping[str, object]]) -> dict[str, int]:
    """Packets by name and by address, from the entries of an audit log."""
    packets: dict[str, int] = {}
    for entry in entries:
        count = entry.get("count")
        if entry.get("event") == "packet" and isinstance(count, int):
            for key in {entry.get("name"), entry.get("address")} - {None, ""}:
                packets[str(key)] = packets.get(str(key), 0) + count
    return packets


def rules_of(bundle: Bundle, running: Running | None) -> list[Row]:
    """The table of one container now."""
    state = files.read_state(bundle)
    sets = firewall.observe(running.namespaces)["sets"] if running is not None else {}
    return rows(state, sets, counted(read_log(bundle.audit)), time.time())


def rules_text(table_rows: Sequence[Row], out: Output | None = None) -> str:
    """The table for people."""
    cells = [(row.destination, row.ports, row.why, _some(row.addresses) or "-", str(row.packets)) for row in table_rows]
    return table([HEADER, *cells], out) if cells else "Nothing is allowed."
