"""What a container may ask for that joins the network of one that is served already."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from terok_host.supervisor import pod

SCOPE, PROFILES, PORTS = "terok.scope", "terok.shield.profiles", "terok.shield.udp_ports"


@pytest.mark.parametrize(
    ("asked", "scope", "first", "expected"),
    [
        ({SCOPE: "work"}, "work", {SCOPE: "work"}, ""),
        ({PROFILES: "lab"}, None, {PROFILES: "lab"}, ""),
        ({SCOPE: "work"}, "work", {SCOPE: "work", PROFILES: "lab"}, ""),
        ({SCOPE: "work", PROFILES: "lab", PORTS: "443"}, "work", {PROFILES: "lab", PORTS: "443"}, ""),
        ({SCOPE: "work"}, "play", {SCOPE: "play"}, "with the scope play, and this one asks for work"),
        ({PROFILES: "lab"}, "play", {}, "with the scope play, and this one asks for none"),
        ({SCOPE: "work"}, None, {}, "with the scope none, and this one asks for work"),
        ({PROFILES: "wide"}, None, {PROFILES: "lab"}, f"with {PROFILES}=lab, and this one asks for wide"),
        ({PROFILES: "wide"}, None, {}, f"with {PROFILES}=, and this one asks for wide"),
        ({PORTS: "53", PROFILES: "lab"}, None, {PROFILES: "lab"}, f"with {PORTS}=, and this one asks for 53"),
        ({"terok.network": "airlock"}, None, {}, "with terok.network=, and this one asks for airlock"),
        ({"terok.publish": "80"}, None, {}, "with terok.publish=, and this one asks for 80"),
        ({"terok.sandbox.sidecar": "/x/sidecar.json"}, None, {}, "and this one has wiring of its own"),
    ],
)
def test_only_what_asks_for_the_same_joins(
    asked: dict[str, str], scope: str | None, first: dict[str, str], expected: str
) -> None:
    wiring: Any = SimpleNamespace(scope=scope)
    assert pod.difference(asked, wiring, first) == expected
