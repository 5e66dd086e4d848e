"""A scope with everything in it: a credential, an SSH key, a shield profile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .house import House

SCOPE, PROFILE = "work", "lab"
PROVIDER = "anthropic"
SECRET = "sk-ant-api03-REAL-w3Xq0Zt8LhVn5KyB7cRj2MdF9sPgU4aE6iToQ1"
"""The credential that must never be seen in a container."""
ALLOWED, DENIED = "allowed.test", "denied.test"


def furnish(
    house: House,
    *,
    upstream: str = "https://upstream.test",
    ca_bundle: Path | str | None = None,
    allowed: Sequence[str] = (ALLOWED,),
    scope: str = SCOPE,
    profile: str = PROFILE,
    ssh_key: bool = True,
) -> None:
    """Give the house a scope.

    Args:
        house: where.
        upstream: where the provider's requests go instead of to the provider.
        ca_bundle: PEM file of the authority that signed the upstream's certificate; None: the system's.
        allowed: lines of the shield profile.
        scope, profile: their names.
        ssh_key: also generate a key.
    """
    profiles = Path(house.layout.profiles)
    profiles.mkdir(parents=True, exist_ok=True)
    (profiles / f"{profile}.txt").write_text("".join(f"{line}\n" for line in allowed))
    house.terok(*add_words(scope, upstream, ca_bundle), stdin=SECRET + "\n")
    if ssh_key and house.terok("ssh", "pub", scope, check=False).returncode != 0:  # one house serves several modules
        house.terok("ssh", "generate", "--scope", scope)


def add_words(scope: str, upstream: str, ca_bundle: Path | str | None) -> list[str]:
    """The words of `terok vault add` that store the credential; its secret comes on standard input."""
    trust = [] if ca_bundle is None else ["--ca-bundle", str(ca_bundle)]
    return ["vault", "add", scope, PROVIDER, "--upstream", upstream, "--allow-private", *trust, "--replace"]
