"""`terok vault authority`: the certificate that a container trusts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...supervisor.ground import paste
from ...supervisor.ground.errors import Exit, TerokError
from ..kit import opening
from ..kit.verb import CONTAINER, switch, verb

if TYPE_CHECKING:
    import argparse

    from ..kit.env import Env


@verb(
    CONTAINER,
    switch("--text", "say what the certificate is for, instead of printing it"),
    examples=("terok vault authority box --text", "terok vault authority box > box.pem"),
)
def run_authority(args: argparse.Namespace, env: Env) -> int:
    """Show the root certificate of a container's own authority, which its clients trust for the brokered hosts.

    Its private key does not exist any more; the key of the intermediate certificate is sealed in the vault.
    """
    with opening.closed(env) as store:
        pem = store.root_certificate(args.name)
    if not pem:
        raise TerokError(
            f"{args.name[:128]} has no certificate authority: HTTPS at the providers' own hosts is off for it.",
            fix=paste.command("terok", "prepare", args.name, "--scope", "SCOPE"),
            code=Exit.NOT_FOUND,
        )
    facts = describe(pem)
    hosts = ", ".join(facts["hosts"])
    text = (
        f"{facts['subject']}\nhosts:   {hosts}\nvalid:   {facts['not_before']} to {facts['not_after']}\n"
        f"SHA-256: {facts['sha256']}"
    )
    env.out.emit({"container": args.name, "pem": pem.decode(), **facts}, text if args.text else pem.decode())
    return Exit.OK


def describe(pem: bytes) -> dict[str, str | list[str]]:
    """What a certificate says; TerokError when it is damaged."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    try:
        certificate = x509.load_pem_x509_certificate(pem)
        named = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except (ValueError, x509.ExtensionNotFound):
        raise TerokError("The container's certificate is damaged.", fix="prepare the container again") from None
    return {
        "subject": certificate.subject.rfc4514_string(),
        "hosts": [name.value for name in named.permitted_subtrees or () if isinstance(name, x509.DNSName)],
        "not_before": f"{certificate.not_valid_before_utc:%Y-%m-%d}",
        "not_after": f"{certificate.not_valid_after_utc:%Y-%m-%d}",
        "sha256": certificate.fingerprint(hashes.SHA256()).hex(),
    }
