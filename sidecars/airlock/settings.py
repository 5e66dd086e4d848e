"""What the launch writes into the sidecar JSON for the relay, in the airlock and for brokered hosts elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...supervisor.ground.layout import AIRLOCK_PORT, handover_socket
from .notify import PASSED_ON

IDLE_SECONDS = 300


def settings_for(
    runtime_dir: str = "",
    brokered: Sequence[str] = (),
    notify: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> dict[str, object]:
    """The relay's own part: its policy is in the bundle.

    Args:
        runtime_dir: the container's; needed with `brokered`.
        brokered: hosts, each as `host:port`, whose connections go to the vault, never out.
        notify: `notify.command`: told about each question to the operator.
        environment: of this process; the command gets what `notify.PASSED_ON` names.
    """
    settings: dict[str, object] = {}
    if brokered:
        settings.update(brokered=list(brokered), handover=handover_socket(runtime_dir))
    if notify:
        kept = {name: value for name, value in (environment or {}).items() if name in PASSED_ON}
        settings.update(notify=list(notify), notify_environment=kept)
    return settings


def listeners() -> list[dict[str, object]]:
    """Where the redirect rules lead, IPv4 and IPv6."""
    return [{"kind": "netns", "port": AIRLOCK_PORT}, {"kind": "netns6", "port": AIRLOCK_PORT}]
