"""AppArmor and dnsmasq: a distribution's profile may keep dnsmasq from its files in the state bundle.

Only the kernel knows what a loaded profile forbids (the list of profiles is for root alone), so dnsmasq itself is
asked to read a configuration in the very place where a container's will be. Where it may not, names are resolved once,
at the start, until an administrator has loaded the few lines that `terok setup` prints.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...supervisor.ground import paste, process
from ...supervisor.ground.layout import Bundle, Layout, dnsmasq_profiles

if TYPE_CHECKING:
    from ..kit.check import Check
    from ..kit.env import Env

ENABLED = "/sys/module/apparmor/parameters/enabled"
_TEST_SECONDS = 10.0


@dataclass(frozen=True)
class Confinement:
    """How a profile keeps dnsmasq from its work.

    said: dnsmasq's own words.
    profile: the profile's file, which includes the local addition; "" when no known one is there.
    local: where the local addition belongs.
    addition: its lines.
    """

    said: str
    profile: str
    local: str
    addition: tuple[str, ...]

    @property
    def summary(self) -> str:
        """What it means, in one sentence without its full stop."""
        return f"An AppArmor profile confines dnsmasq ({self.said}), so allowed names are resolved once, at the start"

    @property
    def fix(self) -> str:
        """The command that writes the local addition and makes the kernel use it."""
        lines = " ".join(map(paste.quoted, self.addition))
        return f"printf '%s\\n' {lines} | sudo tee -a {self.local} && sudo apparmor_parser -r {self.profile}"


def enabled(path: str = ENABLED) -> bool:
    """True when the kernel has AppArmor switched on."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read(1) == "Y"
    except OSError:
        return False


def confinement(layout: Layout, dnsmasq: str | None = None) -> Confinement | None:
    """Why dnsmasq can't read its files in the state bundles; None when it can, or when there is no AppArmor.

    Args:
        layout: where the bundles are.
        dnsmasq: its path; default: the one that is installed.
    """
    if not enabled():
        return None
    path = dnsmasq or process.find("dnsmasq")
    said = _refusal(layout, path) if path else ""
    if not said:
        return None
    profile, local = next(
        ((profile, local) for profile, local in dnsmasq_profiles() if os.path.exists(profile)), dnsmasq_profiles()[0]
    )
    return Confinement(said, profile, local, addition(layout))


def _refusal(layout: Layout, dnsmasq: str) -> str:
    """What `dnsmasq --test` says about a configuration that it may not read; "" when it may."""
    import tempfile  # 6 ms, on hosts with AppArmor alone

    os.makedirs(layout.containers, mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".probe-", dir=layout.containers) as directory:
        conf = Bundle(directory).dnsmasq_conf
        with open(conf, "x", encoding="utf-8") as file:
            file.write("port=0\n")
        result = process.run([dnsmasq, "--test", f"--conf-file={conf}"], timeout=_TEST_SECONDS)
        return result.error if result.code and "ermission denied" in result.error else ""


def addition(layout: Layout) -> tuple[str, ...]:
    """The rules that dnsmasq lacks: reading its files in the bundles, and nothing else."""
    home = os.path.expanduser("~")
    base = layout.containers
    shown = f"@{{HOME}}{base[len(home) :]}" if base.startswith(home + "/") else base
    return (f"owner {shown}/*/dnsmasq.* r,", "capability net_admin,")


def check(env: Env) -> Check | None:
    """The finding for `terok setup` and `terok doctor`; None when dnsmasq may do its work."""
    from ..kit.check import WARN, Check

    confined = confinement(env.layout)
    if confined is None:
        return None
    return Check("shield", "AppArmor", WARN, confined.summary, confined.fix)
