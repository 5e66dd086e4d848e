"""Changes a container's shield while it runs: files in the bundle, transactions in its network namespace, dnsmasq.

The firewall changes first, then dnsmasq. When something closes, a second transaction then makes answers to questions of
the old policy worthless, and a third takes away what they taught. So no moment of a change is wider than its wider end.
The supervisor's guard keeps still while the lock is held; should we die in the middle, it puts in force what the files
say.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from ...supervisor import record
from ...supervisor.ground import audit, paste, process, sockets, within
from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import Bundle
from ...supervisor.wall import firewall, resolver
from . import bundle as files
from . import dnsmasq, policy, ruleset
from .model import ASK, BYPASS, UP
from .state import State
from .targets import Target

_ANSWER_TIMEOUT = 5.0
_TRIES = 5
_LOOK = b"add chain inet terok forward\n"
"""Changes nothing, but the kernel tells the supervisor, which then compares as soon as the lock is free: should this
process be killed between its steps, what the files say is put in force, and `restored` is in the audit log."""


class Running:
    """A container that runs, as far as its shield is concerned.

    Args:
        namespaces: its network namespace, and the user namespace that owns it.
        relay: the airlock's relay, when it runs.
        dns: dnsmasq's process; None without dnsmasq.
        restart_dns: makes dnsmasq start again with its new configuration.
    """

    def __init__(
        self,
        namespaces: process.Namespaces,
        dns: record.Process | None,
        restart_dns: Callable[[], None],
        relay: record.Process | None = None,
    ) -> None:
        self.namespaces, self.dns, self.restart_dns, self.relay = namespaces, dns, restart_dns, relay

    @classmethod
    def find(cls, bundle: Bundle) -> Running | None:
        """The running container of a bundle, by its supervisor's record; None when it does not run."""
        known = record.read(bundle.record)
        if known is None or known.phase != record.READY or known.container is None or not known.alive():
            return None
        supervisor = known.supervisor.open() if known.supervisor else None
        if known.supervisor is None or supervisor is None:
            raise TerokError(
                f"The supervisor of {bundle.name} has died; its firewall stays in force, but cannot be changed.",
                fix=paste.command("terok", "heal", bundle.name),
            )

        def restart() -> None:
            signal.pidfd_send_signal(supervisor, signal.SIGHUP)

        namespaces = _namespaces(known.supervisor.pid, known.container.pid)
        return cls(namespaces, known.service("dnsmasq").process, restart, known.service("airlock").process)

    def reload_dns(self) -> None:
        """Make dnsmasq read its lists again; when it is dead, its successor reads them anyway."""
        fd = self.dns.open() if self.dns else None
        if fd is not None:
            _hang_up(fd)
            os.close(fd)

    def wait_for_dns(self, generation: int) -> None:
        """Wait until dnsmasq answers by the lists of `generation`; raises TerokError after five seconds."""
        _, (fd,) = within.call_in(
            self.namespaces, lambda: (b"", [sockets.connect_udp("127.0.0.1", 53)]), timeout=_ANSWER_TIMEOUT
        )
        try:
            resolver.probe(fd, dnsmasq.marker(generation), _ANSWER_TIMEOUT, present=True)
        finally:
            os.close(fd)


def _hang_up(process_fd: int) -> None:
    """Send SIGHUP to a process that may have ended."""
    try:
        signal.pidfd_send_signal(process_fd, signal.SIGHUP)
    except ProcessLookupError:
        pass


def _namespaces(supervisor: int, container: int) -> process.Namespaces:
    """The container's network namespace, and the supervisor's user namespace, which owns it whatever --userns says."""
    user: int | None = os.open(f"/proc/{supervisor}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    assert user is not None
    ours, theirs = os.stat("/proc/self/ns/user"), os.fstat(user)
    if (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino):  # setns(2) into one's own is EINVAL
        os.close(user)
        user = None
    return process.Namespaces(user=user, net=os.open(f"/proc/{container}/ns/net", os.O_RDONLY | os.O_CLOEXEC))


@contextmanager
def locked(bundle: Bundle) -> Iterator[None]:
    """One change of a container's shield at a time."""
    try:
        fd = os.open(bundle.shield_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileNotFoundError:
        raise TerokError(f"There is no container {bundle.name}.", code=Exit.NOT_FOUND) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextmanager
def settled(bundle: Bundle) -> Iterator[None]:
    """While no verb is changing the container's shield: in between, files and firewall differ."""
    try:
        fd = os.open(bundle.shield_lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield  # never changed so far
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)


def allow(
    bundle: Bundle,
    running: Running | None,
    targets: Sequence[Target],
    *,
    notes: Sequence[str] = (),
    until: float | None = None,
) -> policy.Step:
    """Allow targets, now and at every later start.

    Args:
        notes: for the audit log.
        until: only so long (seconds since the epoch), and not beyond the container's next start.

    Raises:
        TerokError: it could not be done.
    """
    return _apply(bundle, running, lambda state: policy.allow(state, targets, until), "allow", targets, notes, until)


def deny(bundle: Bundle, running: Running | None, targets: Sequence[Target]) -> policy.Step:
    """Deny targets, now and at every later start, and end what is open to them; raises TerokError."""
    return _apply(bundle, running, lambda state: policy.deny(state, targets), "deny", targets)


def forget(bundle: Bundle, running: Running | None, targets: Sequence[Target]) -> policy.Step:
    """Take back live allowances and denials of exactly these targets; raises TerokError."""
    return _apply(bundle, running, lambda state: policy.forget(state, targets), "forget", targets)


def lapse(bundle: Bundle, running: Running | None) -> list[Target]:
    """End what was granted for a time that is over, and return the targets; raises TerokError."""
    with locked(bundle):
        old, due = _without_expired(bundle, running)
        if old.model.mode in (BYPASS, ASK) and old.until is not None and old.until <= time.time():
            _change(bundle, running, old, _reaching(policy.set_mode(old, UP), due), UP, [])
        return due


def refresh(bundle: Bundle, running: Running | None) -> policy.Step:
    """Resolve names again where no dnsmasq does it; raises TerokError."""
    return _apply(bundle, running, policy.refresh, "resolve", [])


def set_mode(bundle: Bundle, running: Running | None, mode: str, until: float | None = None) -> policy.Step:
    """Change the mode; `until` (seconds since the epoch) is when a bypass or the asking ends."""
    if mode == ASK and files.read_state(bundle).addresses is None:
        raise TerokError(
            f"{bundle.name} is not in the airlock; the other network modes cannot hold a connection and ask.",
            fix=paste.command("terok", "run", bundle.name, "--network", "airlock") + " ...",
        )
    return _apply(bundle, running, lambda state: policy.set_mode(state, mode, until), mode, [])


def reset(bundle: Bundle, running: Running | None) -> policy.Step:
    """Forget every live allowance and denial."""
    return _apply(bundle, running, policy.reset, "reset", [])


def _apply(
    bundle: Bundle,
    running: Running | None,
    decide: Callable[[State], policy.Step],
    event: str,
    targets: Sequence[Target],
    notes: Sequence[str] = (),
    until: float | None = None,
) -> policy.Step:
    with locked(bundle):
        old, due = _without_expired(bundle, running)  # should the process that does it have died
        return _change(bundle, running, old, _reaching(decide(old), due), event, targets, notes, until)


def _without_expired(bundle: Bundle, running: Running | None) -> tuple[State, list[Target]]:
    """The state after allowances whose time is over were taken back, and these."""
    old = files.read_state(bundle)
    due = policy.expired(old, time.time())
    if due:
        old = _change(bundle, running, old, policy.forget(old, due), "lapse", due).state
    return old, due


def _reaching(step: policy.Step, due: Sequence[Target]) -> policy.Step:
    """The step for a dnsmasq that taking `due` back has started anew: only the supervisor knows it, not `Running`."""
    return replace(step, restart=step.restart or bool(due))


def _change(
    bundle: Bundle,
    running: Running | None,
    old: State,
    step: policy.Step,
    event: str,
    targets: Sequence[Target],
    notes: Sequence[str] = (),
    until: float | None = None,
) -> policy.Step:
    step = replace(step, state=files.with_addresses(step.state))
    if event in ("allow", "deny"):
        files.check_size(step.state.model)
    try:
        if running is not None:
            _carry_out(bundle, running, old, step)
        else:
            files.write(bundle, files.with_lines(files.at_start(step.state)))
        files.write_lists(bundle, step.state.lasting(), step.state.model.denied)
    except TerokError as error:
        _note(bundle, event, step, targets, notes, until, failed=error.what)
        raise
    _note(bundle, event, step, targets, notes, until)
    return step


def _note(
    bundle: Bundle,
    event: str,
    step: policy.Step,
    targets: Sequence[Target],
    notes: Sequence[str],
    until: float | None,
    *,
    failed: str | None = None,
) -> None:
    fields = {
        "targets": [str(target) for target in targets],
        "until": until and time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(until)),
        "notes": [*notes, *step.notes],
        "failed": failed,
    }
    audit.append(
        bundle.audit,
        "shield",
        event,
        mode=step.state.model.mode,
        **{key: value for key, value in fields.items() if value},
    )


def _carry_out_in_airlock(bundle: Bundle, running: Running, old: State, step: policy.Step) -> None:
    """Files, relay, rules and routes, names: the relay decides about every connection, so it comes first."""
    state = step.state
    before = files.render(old, bundle)
    after = _write_and_tell(bundle, running, state)
    change = ruleset.change(files.table(old), files.table(state))
    firewall.load(running.namespaces, _LOOK + change.encode())
    firewall.settle(running.namespaces, files.shield_of(bundle, state))
    if after.dnsmasq_conf is not None:
        _tell_dns(running, replace(step, restart=before.dnsmasq_conf != after.dnsmasq_conf))


def _write_and_tell(bundle: Bundle, running: Running, state: State) -> files.Rendered:
    """Write the files, and wait for the relay to follow, where there is one."""
    now = files.write(bundle, state)
    if now.policy is not None:
        tell_relay(bundle, running, state.generation)
    return now


def tell_relay(bundle: Bundle, running: Running, generation: int) -> None:
    """Wait until the relay follows the policy of `generation`; one that starts later reads it anyway.

    Raises:
        TerokError: it did not within five seconds.
    """
    relay = running.relay.open() if running.relay else None
    if relay is None:
        return
    try:
        told = os.open(bundle.airlock_told, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        os.close(relay)
        return  # it has not got so far: it will read the policy when it does
    try:
        _read_generations(told)
        _hang_up(relay)
        waiting = select.poll()
        for fd in (told, relay):
            waiting.register(fd, select.POLLIN)
        deadline = time.monotonic() + _ANSWER_TIMEOUT
        while left := max(0.0, deadline - time.monotonic()):
            ready = dict(waiting.poll(left * 1000))
            if relay in ready or generation in _read_generations(told):
                return
    finally:
        os.close(told)
        os.close(relay)
    raise TerokError(f"The relay of {bundle.name} did not take the new policy within {_ANSWER_TIMEOUT:g} s.")


def _read_generations(told: int) -> list[int]:
    try:
        data = os.read(told, 1 << 16)
    except BlockingIOError:
        return []
    return [int.from_bytes(data[at : at + 8], "big") for at in range(0, len(data), 8)]


def _carry_out(bundle: Bundle, running: Running, old: State, step: policy.Step) -> None:
    if old.addresses is not None:
        _carry_out_in_airlock(bundle, running, old, step)
        return
    # A change that only opens: rules, file, names. It may be interrupted anywhere, since nothing is open that is not
    # allowed by the new policy. A change that closes: first rules that grant only what both policies allow, then
    # dnsmasq, then what dnsmasq taught under the old policy; a name that is answered meanwhile must not open an
    # address for good.
    before, after = ruleset.build(old.model), ruleset.build(step.state.model)
    dns = old.has_dnsmasq
    if not step.restrictive:
        if step.state.model.mode == BYPASS:
            firewall.load(running.namespaces, _bypass(step.state.until))
        firewall.load(running.namespaces, ruleset.change(before, after).encode())
        _write_and_tell(bundle, running, step.state)
        if dns:
            _tell_dns(running, step)
        return
    closed = ruleset.halfway(old.model, step.state.model, dns_epoch=old.model.dns_epoch)
    between = ruleset.halfway(old.model, step.state.model, dns_epoch=step.state.model.dns_epoch)
    firewall.load(running.namespaces, _LOOK + ruleset.change(before, closed).encode())
    _write_and_tell(bundle, running, step.state)
    if dns:
        _tell_dns(running, step)
    firewall.load(running.namespaces, ruleset.change(closed, between).encode())
    if dns:
        running.wait_for_dns(step.state.generation)  # it has finished with whatever answer it was at
    for attempt in range(_TRIES):  # a rotation may empty a set between the reading and the change
        observed = firewall.observe(running.namespaces)
        single, last = policy.cleaning(step, old, observed)
        if policy.crowded(observed, single):
            step, single, last = policy.judged_anew(step, single, last)
            after = ruleset.build(step.state.model)
            files.write(bundle, step.state)
        try:
            for command in single:
                firewall.load(running.namespaces, command.encode())
            firewall.load(running.namespaces, ruleset.change(between, after, last).encode())
            return
        except TerokError:
            if attempt == _TRIES - 1:
                raise


def _tell_dns(running: Running, step: policy.Step) -> None:
    if step.restart:
        running.restart_dns()
    else:
        running.reload_dns()
    running.wait_for_dns(step.state.generation)


def _bypass(until: float | None) -> bytes:
    seconds = max(1, round((until or 0) - time.time()))
    elements = ", ".join(f"{family} timeout {seconds}s" for family in ("ipv4", "ipv6"))
    return f"flush set inet terok bypass\nadd element inet terok bypass {{ {elements} }}\n".encode()
