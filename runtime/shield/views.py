"""What `terok shield` shows: rules, status, profiles, previews, resolved names, the least profile."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from ...sidecars.shield import bundle as files
from ...sidecars.shield import dnsmasq, ruleset, static
from ...sidecars.shield import profiles as shelf
from ...sidecars.shield.live import Running, refresh, settled
from ...sidecars.shield.model import BYPASS, Forwarder, Model, taught_set
from ...sidecars.shield.state import State
from ...sidecars.shield.targets import NAME
from ...supervisor.ground import paste, process, sockets, within
from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import Bundle
from ...supervisor.wall import firewall, resolver
from ..kit.alive import containers
from ..kit.audit_lines import read as read_log
from ..kit.env import Env
from ..kit.table import table


def _needs(running: Running | None, bundle: Bundle) -> Running:
    if running is None:
        raise TerokError(
            f"{bundle.name} is not running.", fix=paste.command("podman", "start", bundle.name), code=Exit.NOT_FOUND
        )
    return running


def show_rules(bundle: Bundle, running: Running | None, env: Env) -> int:
    """The table as nft lists it; with --json its structure."""
    running = _needs(running, bundle)
    listing = process.run(["nft", "list", "table", *firewall.TABLE.split()], timeout=10, namespaces=running.namespaces)
    if listing.code:
        raise TerokError(f"nft cannot list the firewall: {listing.error}")
    env.out.emit(firewall.observe(running.namespaces), listing.out.decode())
    return Exit.OK


def describe(bundle: Bundle) -> dict[str, Any]:
    """Everything that `status` says about one container's shield."""
    enforced, reason = None, ""
    with settled(bundle):
        state = files.read_state(bundle)
        try:
            running = Running.find(bundle)
            if running is not None:
                firewall.verify(running.namespaces, files.shield_of(bundle, state))
                enforced = True
        except TerokError as error:
            enforced, reason = False, str(error)
    mode = state.model.mode
    if mode == BYPASS and state.until is not None and state.until < time.time():
        reason = reason or f"the bypass is over; run `terok shield up {paste.quoted(bundle.name)}`"
    names = "dnsmasq"
    if state.addresses is not None:
        names = "airlock" if state.has_dnsmasq else "airlock, in /etc/hosts: no wildcards without dnsmasq 2.86 or newer"
    elif state.model.forwarder is None:
        names = "none: no network"
    elif not state.features.usable:
        names = f"static: dnsmasq {state.features.missing}"
    return {
        "container": bundle.name,
        "mode": mode,
        "until": state.until,
        "enforced": enforced,
        "reason": reason,
        "profiles": list(state.profiles),
        "allowed_live": [str(target) for target in state.lasting()],
        "allowed_until": {str(target): until for target, until in state.passing},
        "denied": [str(target) for target in state.model.denied],
        "names": names,
        "forwarder": str(state.model.forwarder) if state.model.forwarder else None,
    }


def _rest(until: float) -> str:
    left = round(until - time.time())
    return f"for {left} s more" if left > 0 else "no longer: `terok shield forget NAME --expired` takes it back"


def show_status(name: str | None, env: Env) -> int:
    """One line a container, or all about one; exit code 1 when a running container's firewall is not as expected."""
    if name is not None:
        chosen = [env.layout.bundle(name)]
    else:
        bundles = map(env.layout.bundle, containers(env.layout))
        chosen = [bundle for bundle in bundles if os.path.exists(bundle.shield)]
    rows = [describe(bundle) for bundle in chosen]
    lines = []
    for row in rows:
        held = {True: "enforced", False: "NOT ENFORCED", None: "not running"}[row["enforced"]]
        lines.append(
            f"{row['container']}  {row['mode']}  {held}  profiles {','.join(row['profiles'])}  names {row['names']}"
        )
        if name is not None:
            lines += [f"  allowed  {target}" for target in row["allowed_live"]]
            lines += [f"  allowed  {target} {_rest(until)}" for target, until in row["allowed_until"].items()]
            lines += [f"  denied   {target}" for target in row["denied"]]
        if row["reason"]:
            lines.append(f"  {row['reason']}")
    env.out.emit(rows[0] if name is not None else rows, "\n".join(lines) or "No container has a shield.")
    return Exit.FAILURE if any(row["enforced"] is False for row in rows) else Exit.OK


def show_profiles(env: Env) -> int:
    """Every profile with its origin and size; a broken one is shown with its complaint."""
    rows, cells = [], [("PROFILE", "ORIGIN", "TARGETS", "FILE")]
    for name, path in shelf.available(env.layout.profiles).items():
        origin = "bundled" if os.path.dirname(path) == shelf.BUNDLED else "yours"
        try:
            row: dict[str, object] = {"name": name, "origin": origin, "path": path, "targets": len(shelf.read(path))}
            cells.append((name, origin, str(row["targets"]), path))
        except TerokError as error:
            row = {"name": name, "origin": origin, "path": path, "error": str(error)}
            cells.append((name, origin, "broken", str(error)))
        rows.append(row)
    env.out.emit(rows, table(cells, env.out))
    return Exit.OK


def show_preview(names: Sequence[str], env: Env) -> int:
    """The ruleset and dnsmasq's lists that profiles would become."""
    chosen = list(names) or list(env.config.shield.profiles)
    base = shelf.load(chosen, env.layout.profiles)
    model = Model(allowed=base, forwarder=Forwarder.parse(env.config.shield.forwarder or "192.0.2.53"))
    model = Model(allowed=base, forwarder=model.forwarder, taught=tuple(dnsmasq.lines(model)))
    text = ruleset.text(ruleset.build(model))
    data = {
        "profiles": chosen,
        "targets": [str(target) for target in base],
        "ruleset": text,
        "servers": dnsmasq.servers(model),
    }
    env.out.emit(data, f"{text}\n# dnsmasq: {len(model.names())} names\n{data['servers']}")
    return Exit.OK


def show_resolved(bundle: Bundle, running: Running | None, env: Env) -> int:
    """Ask dnsmasq for every allowed exact name, so that its answers are learned anew, and show the sets."""
    running = _needs(running, bundle)
    state = files.read_state(bundle)
    if state.addresses is not None:
        return _show_synthetic(state, state.addresses, env)
    if not state.features.usable:
        hosts = refresh(bundle, running).state.hosts
        env.out.emit({"names": hosts, "unanswered": []}, _addresses(hosts, env))
        return Exit.OK
    names = [target.value for target in state.model.names() if target.kind == NAME]
    _, (fd,) = within.call_in(running.namespaces, lambda: (b"", [sockets.connect_udp("127.0.0.1", 53)]), timeout=5)
    unanswered = []
    try:
        for name in names:
            for kind in (1, 28):
                try:
                    resolver.probe(fd, name, 3, kind=kind)
                except TerokError:
                    unanswered.append(name)
    finally:
        os.close(fd)
    sets = firewall.observe(running.namespaces)["sets"]
    rows = {name: [address] for name, address in state.model.led().items()}
    for line in (*state.lines, None):
        learned = [address for family in (4, 6) for address in sets.get(taught_set(line, family), {"elem": []})["elem"]]
        rows.setdefault(line or "(allowed live)", []).extend(learned)
    env.out.emit({"names": rows, "unanswered": sorted(set(unanswered))}, _addresses(rows, env))
    return Exit.OK


def _addresses(names: dict[str, list[str]], env: Env) -> str:
    return table([(name, " ".join(addresses) or "-") for name, addresses in names.items()], env.out, header=False)


def _show_synthetic(state: State, addresses: dict[str, str], env: Env) -> int:
    """Each allowed name of an airlock: its address in the container, and those that the host resolves it to now."""
    own = {target.value: addresses[target.value] for target in state.model.names() if target.kind == NAME}
    answers = static.lookup(list(own))
    data = {"names": answers, "unanswered": [name for name in own if name not in answers], "synthetic": own}
    cells = [(name, address, " ".join(answers.get(name, [])) or "-") for name, address in own.items()]
    env.out.emit(data, table([("NAME", "IN THE CONTAINER", "ON THE HOST"), *cells], env.out))
    return Exit.OK


def least_profile(name: str, env: Env) -> int:
    """The profile that the connections recorded by `learn` need."""
    seen: dict[str, None] = {}
    for entry in read_log(env.layout.bundle(name).audit):
        if entry.get("event") in ("packet", "connection") and entry.get("verdict") == "learn":
            target = entry.get("name") or entry.get("address")
            if target and entry.get("proto") in ("tcp", "udp"):
                seen.setdefault(_suggest(str(target), str(entry["proto"]), int(entry.get("port") or 0)))
    env.out.emit({"container": name, "profile": list(seen)}, "\n".join(seen) or "# nothing was recorded")
    return Exit.OK


def _suggest(target: str, protocol: str, port: int) -> str:
    if protocol == "tcp" and port in (80, 443):
        return target
    host = f"[{target}]" if ":" in target else target
    return f"{host}:{port}" + ("/udp" if protocol == "udp" else "")
