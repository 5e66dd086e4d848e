"""Puts a container's firewall in force and checks that it is, in a child inside the container's network namespace.

The ruleset is text that the launch rendered; it goes to nftables as one transaction, so there is no moment with half
of it. What the kernel then holds is read back as JSON and compared as structure with `ruleset.json`, because two
versions of nftables print the same rules differently.

A ruleset that differs from the one of the launch for as long as this start lasts (`terok shield down`, `bypass`) lies
beside it with the suffix `.now`, and what dnsmasq may answer at a start with the suffix `.start`; `put` ends both, so
that every start begins closed.
"""

from __future__ import annotations

import os

from ..ground import within
from ..ground.errors import TerokError
from ..ground.layout import Bundle
from ..ground.quick import dumps, loads
from . import loopback, nft

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypedDict

    from ..ground.process import Namespaces
    from ..schema import Shield

    class Chain(TypedDict):
        """`hook`: type, hook, priority, policy; None for a chain that others jump to."""

        hook: list[object] | None
        rules: list[list[object]]

    class Set(TypedDict):
        """`elem`: addresses as text; ranges and pairs as nft writes them."""

        type: object
        flags: list[str]
        timeout: int | None
        elem: list[Any]

    class Structure(TypedDict):
        """A table, reduced to what decides about packets; `other`: the kinds of other objects."""

        chains: dict[str, Chain]
        sets: dict[str, Set]
        other: list[str]


TABLE = "inet terok"
REPLACE = f"add table {TABLE}\ndelete table {TABLE}\n"
"""How a ruleset begins that takes the place of whatever the table holds."""
NOW, START = ".now", ".start"
ROTATE_SECONDS = 3600
"""Seconds between two calls of `rotate`: a learned address lives for one to two periods after its last answer."""
TIMEOUT = 10.0
"""Seconds for any one of these operations."""

_FILE_MAX = 8 << 20


def apply(namespaces: Namespaces, shield: Shield) -> None:
    """Replace the table by the ruleset of the launch, in one transaction, and check that it took.

    Args:
        namespaces: the container's network namespace (and the user namespace that owns it, when not ours).
        shield: where the ruleset and its expected structure lie.

    Raises:
        TerokError: a file is missing, the ruleset was refused, or reading it back showed something else.
    """

    def body() -> None:
        put(shield)
        check(shield)

    _inside(namespaces, body)


def begin_closed(shield: Shield) -> None:
    """End what was in force for the previous start only; before dnsmasq or the relay reads a file."""
    for path in (shield.ruleset + NOW, shield.expected + NOW, (shield.loopback or shield.ruleset) + NOW):
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
    bundle = Bundle(os.path.dirname(shield.ruleset))
    for path in (bundle.dnsmasq_servers, bundle.dnsmasq_hosts, bundle.dnsmasq_conf, bundle.airlock_policy):
        try:
            os.replace(path + START, path)
        except FileNotFoundError:
            pass


def put(shield: Shield) -> None:
    """The first half of `apply`, for a caller that is in the namespaces itself."""
    begin_closed(shield)
    _load_new(_read(shield.ruleset))
    if shield.loopback is not None:
        loopback.put(shield.loopback)


def check(shield: Shield) -> None:
    """The second half of `apply`: compare what the kernel holds with what should be in force.

    Raises:
        TerokError: naming the first difference.
    """
    path = _in_force(shield.expected)
    try:
        expected = loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise TerokError(f"What the firewall should be, {path}, is not JSON.", fix="terok prepare again") from error
    differs = difference(expected, structure(loads(_list())["nftables"]))
    if differs:
        raise TerokError(f"The firewall in force is not the expected one: {differs}.")
    if shield.loopback is not None:
        loopback.check(_in_force(shield.loopback))


def restore(namespaces: Namespaces, shield: Shield) -> None:
    """Put back what should be in force now, after another process changed or flushed the table.

    Raises:
        TerokError: as `apply`.
    """

    def body() -> None:
        _load(_read(_in_force(shield.ruleset)))
        if shield.loopback is not None:
            loopback.put(_in_force(shield.loopback))
        check(shield)

    _inside(namespaces, body)


def _in_force(path: str) -> str:
    """The file that counts now: the one beside it, while something differs from what a start begins with."""
    return path + NOW if os.path.exists(path + NOW) else path


def settle(namespaces: Namespaces, shield: Shield) -> None:
    """Make the airlock's routes what they should be now, and check everything.

    Raises:
        TerokError: as `apply`.
    """

    def body() -> None:
        if shield.loopback is not None:
            loopback.put(_in_force(shield.loopback))
        check(shield)

    _inside(namespaces, body)


def load(namespaces: Namespaces, ruleset: bytes) -> None:
    """Feed one transaction to nftables.

    Raises:
        TerokError: with its first complaint; nothing was changed then.
    """
    _inside(namespaces, lambda: _load(ruleset))


def verify(namespaces: Namespaces, shield: Shield) -> None:
    """`check` from outside of the namespaces.

    Raises:
        TerokError: naming the first difference.
    """
    _inside(namespaces, lambda: check(shield))


def observe(namespaces: Namespaces) -> Structure:
    """The table as it is in the kernel now, in the form of `ruleset.json`.

    Raises:
        TerokError: there is no such table, or it cannot be listed.
    """
    listing, _ = within.call_in(namespaces, lambda: (_list(), []), timeout=TIMEOUT)
    return structure(loads(listing)["nftables"])


def _inside(namespaces: Namespaces, body: Callable[[], None]) -> None:
    def answer() -> tuple[bytes, list[int]]:
        body()
        return b"", []

    within.call_in(namespaces, answer, timeout=TIMEOUT)


def _load(ruleset: bytes) -> None:
    try:
        nft.load(ruleset)
    except nft.Refused as error:
        raise TerokError(f"The firewall could not be put in force: nft says {error.complaint!r}.") from error


def _load_new(ruleset: bytes) -> None:
    """Load where most likely no such table is yet: to delete one that was added in the same transaction costs 10 ms."""
    if ruleset.startswith(REPLACE.encode()):
        try:
            nft.load(f"create table {TABLE}\n".encode() + ruleset[len(REPLACE) :])
            return
        except nft.Refused:
            pass  # there is one, or the ruleset is wrong, which the complaint of the whole will say
    _load(ruleset)


def _list() -> bytes:
    try:
        return nft.listing(TABLE)
    except nft.Refused as error:
        raise TerokError(f"The firewall cannot be read back: nft says {error.complaint!r}.") from error


def rotate(namespaces: Namespaces, shield: Shield, turn: int) -> None:
    """Forget the older generation of learned addresses.

    dnsmasq writes each answer into both generations, `_a` and `_b`, and adding an address again does not renew its
    life. Emptying the generations in turn leaves each address for one to two periods after its last answer, and
    dnsmasq hands out no longer TTL than one period.

    Args:
        turn: counts up with each call.

    Raises:
        TerokError: nft refused.
    """
    generation = ("_a", "_b")[turn % 2]
    names = loads(_read(shield.expected))["sets"]
    sets = [name for name in names if name.startswith("learned") and name.endswith(generation)]
    if sets:
        load(namespaces, "".join(f"flush set {TABLE} {name}\n" for name in sets).encode())


def structure(listing: list[dict[str, Any]]) -> Structure:
    """Reduce nft's JSON (libnftables-json(5)) to what decides about packets: no handles, counters or order of sets."""
    chains: dict[str, Chain] = {}
    sets: dict[str, Set] = {}
    other: list[str] = []
    for entry in listing:
        ((kind, body),) = entry.items()
        if kind == "chain":
            hook = [body["type"], body["hook"], body["prio"], body.get("policy")] if "hook" in body else None
            chains[body["name"]] = {"hook": hook, "rules": []}
        elif kind == "set":
            sets[body["name"]] = {
                "type": body["type"],
                "flags": sorted({*body.get("flags", [])} - {"dynamic"}),  # listed by some versions only
                "timeout": body.get("timeout"),
                "elem": sorted((_plain(element) for element in body.get("elem", [])), key=dumps),
            }
        elif kind not in ("metainfo", "table", "rule"):
            other.append(kind)
    for entry in listing:  # nft 1.0 lists rules after all chains, newer ones after each: the order within a chain holds
        if "rule" in entry:
            chains[entry["rule"]["chain"]]["rules"].append([_plain(expression) for expression in entry["rule"]["expr"]])
    return {"chains": chains, "sets": sets, "other": other}


def _plain(value: object) -> Any:
    """One spelling for what nft versions print differently, or what changes while packets flow."""
    if isinstance(value, list):
        plain = [_plain(item) for item in value]
        return sorted(plain) if all(isinstance(item, str) for item in plain) else plain
    if not isinstance(value, dict):
        return value
    # An element with a timeout or a counter is an object around its value. Flags are a list or `{"|": [...]}`, and the
    # members of a set come in no fixed order. Counters change with every packet.
    if "elem" in value and isinstance(value["elem"], dict) and "val" in value["elem"]:
        return _plain(value["elem"]["val"])
    if value.keys() == {"|"}:
        return _plain(value["|"])
    if "counter" in value:
        return {"counter": None}
    if value.keys() == {"set"} and isinstance(value["set"], list):
        return {"set": sorted((_plain(item) for item in value["set"]), key=dumps)}
    return {key: _plain(member) for key, member in value.items()}


def difference(expected: Mapping[str, Any], observed: Structure) -> str | None:
    """The first difference between two structures, in words; None when they agree.

    A set that `expected` gives with `"elem": null` is filled while the container runs: its elements are not compared.
    """
    # Names first, then content, so that the sentence names the most telling difference. The order of rules counts, the
    # order of elements does not: the kernel lists a hash set in any order.
    if observed["other"]:
        return f"the table has a foreign {observed['other'][0]}"
    chains = "chain", expected["chains"].keys(), observed["chains"].keys()
    sets = "set", expected["sets"].keys(), observed["sets"].keys()
    for kind, wanted, present in (chains, sets):
        if odd := wanted ^ present:
            name = min(odd)
            return f"the {kind} {name} {'is missing' if name in wanted else 'is foreign'}"
    for name, chain in expected["chains"].items():
        seen = observed["chains"][name]
        if chain["hook"] != seen["hook"]:
            return f"the chain {name} hangs on {seen['hook']}, not on {chain['hook']}"
        if len(chain["rules"]) != len(seen["rules"]):
            return f"the chain {name} has {len(seen['rules'])} rules, not {len(chain['rules'])}"
        for number, (rule, seen_rule) in enumerate(zip(chain["rules"], seen["rules"], strict=True), 1):
            if _plain(rule) != seen_rule:
                return f"rule {number} of the chain {name} is {dumps(seen_rule)[:200]}"
    for name, should in expected["sets"].items():
        there: dict[str, object] = {**observed["sets"][name]}
        for key, value in should.items():
            if key != "elem" and value != there[key]:
                return f"the set {name} has {key} {there[key]}, not {value}"
        if should["elem"] is not None and sorted((_plain(e) for e in should["elem"]), key=dumps) != there["elem"]:
            return f"the set {name} has other elements"
    return None


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(_FILE_MAX + 1)
    except OSError as error:
        raise TerokError(
            f"The firewall's file {path} cannot be read: {error.strerror}.", fix="run `terok prepare` again"
        ) from error
    if len(content) > _FILE_MAX:
        raise TerokError(f"The firewall's file {path} is larger than {_FILE_MAX >> 20} MiB.")
    return content
