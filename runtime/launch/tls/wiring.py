"""HTTPS at the providers' own hosts: which are brokered, the container's authority, and where its clients find it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ....sidecars.roster import brokered, catalog
from ....sidecars.roster.model import Catalog
from ....sidecars.shield.special import check_allowed
from ....sidecars.shield.targets import TargetError, parse
from ....sidecars.store.records import LockedError
from ....sidecars.store.store import AUTHORITY, Store
from ....supervisor.ground import layout as places
from ....supervisor.ground.errors import TerokError
from ....supervisor.ground.layout import Bundle
from ...kit import files
from ...kit.config import VaultConfig

LOCKED = (
    "The vault is locked, so this container gets no certificate authority: its clients reach their providers at "
    "http://127.0.0.1:9419 alone. After `terok vault unlock`, prepare the container again for HTTPS."
)


class Brokered(NamedTuple):
    """What is terminated for one container.

    Attributes:
        hosts: each as `host:port`; empty: TLS is off.
        providers: those all of whose hosts are among them; their clients need no address of the vault's.
    """

    hosts: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()


def decide(cfg: VaultConfig, scope: str, catalogue: Catalog, held: Mapping[str, dict[str, object]]) -> Brokered:
    """The brokered hosts of a scope, as far as the configuration wants them; pure.

    Args:
        cfg: `tls` and `tls_except`.
        held: provider -> meta of the scope's credentials that the roster knows.
    """
    if not cfg.tls or f"{scope}/" in cfg.tls_except:
        return Brokered()
    without = {
        entry.rpartition("/")[2] for entry in cfg.tls_except if "/" not in entry or entry.startswith(f"{scope}/")
    }
    hosts = tuple(host for host in brokered.of_scope(catalogue, held, without=without) if _has_a_name_inside(host))
    whole = tuple(name for name, meta in held.items() if _covers(hosts, catalogue, name, meta))
    return Brokered(hosts, whole)


def _has_a_name_inside(host: str) -> bool:
    """Whether the shield can name `host:port`; not `localhost` or an intranet's short name, which the vault serves."""
    try:
        check_allowed(parse(host))
    except TargetError:
        return False
    return True


def _covers(hosts: Sequence[str], catalogue: Catalog, name: str, meta: dict[str, object]) -> bool:
    """Whether every upstream of a provider is among the hosts."""
    provider = catalogue.provider(name)
    assert provider is not None  # `held` has what the roster knows
    try:
        whole = catalog.effective(provider, meta)
    except TerokError:
        return False
    kind = str(meta.get("auth", "api-key"))
    own = brokered.of_provider(whole, kind)
    everything = [upstream for upstream in whole.upstreams if not upstream.auth or kind in upstream.auth]
    encrypted = [upstream for upstream in everything if upstream.url.startswith("https://")]
    return bool(own) and len(encrypted) == len(everything) and all(f"{host}:{port}" in hosts for host, port in own)


def ensure_authority(store: Store, bundle: Bundle, hosts: Sequence[str], notes: list[str]) -> bool:
    """See that the container has an authority for exactly these hosts, and its certificate is in the bundle.

    It is kept while the hosts are the same: a container that runs since then trusts that one.

    Args:
        store: unlocked, if it can be.
        hosts: each as `host:port`.
        notes: what to tell people is added here.

    Returns:
        False when the vault is locked and there is none: TLS is off for this container then.

    Raises:
        TerokError: a host cannot be in a certificate, or the bundle cannot be written.
    """
    names = sorted({brokered.parse(host)[0] for host in hosts})
    try:
        authority = store.authority(bundle.name)
        if authority is None or sorted(authority.hosts) != names:
            from ....sidecars.vault.tls.authority import make_authority

            authority = make_authority(bundle.name, names)
            store.put_authority(bundle.name, authority)
    except LockedError:
        # what the bundle has was written here while the vault was open; only the brokered hosts were read just now
        if _hosts(store, bundle.name) == names and os.path.exists(bundle.authority):
            return True
        notes.append(LOCKED)
        return False
    if _content(bundle.authority) != authority.root:
        from . import java

        files.write(bundle.authority, authority.root, mode=0o644)
        files.write(bundle.java_trust, java.of_host(authority.root), mode=0o644)
        files.write(bundle.chromium_policy, chromium_policy(authority.root), mode=0o644)
    if _content(bundle.tls_spare) != authority.spare:
        files.write(bundle.tls_spare, authority.spare)
    return True


def chromium_policy(root: bytes) -> str:
    """The policy that makes Chromium and Chrome trust a certificate, PEM (enterprise policy `CACertificates`)."""
    import json
    from base64 import b64encode

    from . import java

    return json.dumps({"CACertificates": [b64encode(der).decode() for der in java.certificates(root)]}) + "\n"


def _hosts(store: Store, container: str) -> list[str]:
    entry = next((entry for entry in store.describe(AUTHORITY) if entry.name == container), None)
    hosts = entry.meta.get("hosts") if entry is not None else None
    return sorted(map(str, hosts)) if isinstance(hosts, list) else []


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def drop(store: Store, bundle: Bundle) -> None:
    """Take back what `ensure_authority` gave, when TLS is off now."""
    store.drop_authority(bundle.name)
    for path in (bundle.authority, bundle.java_trust, bundle.chromium_policy, bundle.tls_spare):
        files.remove_file(path)


_WHOLE = (
    "SSL_CERT_FILE",  # OpenSSL, Go, rustls-native-certs, Ruby, uv, httpx
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "HTTPLIB2_CA_CERTS",
    "NIX_SSL_CERT_FILE",
    "PERL_LWP_SSL_CA_FILE",
    "BUNDLE_SSL_CA_CERT",
    "HEX_CACERTS_PATH",
    "JULIA_SSL_CA_ROOTS_PATH",
)
"""Variables whose file replaces the client's own list of authorities."""
_OURS = ("NODE_EXTRA_CA_CERTS", "DENO_CERT")
"""Variables whose file is added to it. Node reads its file at every start, so it is a short one."""


def environment() -> dict[str, str]:
    """What tells clients where the certificates are, when they do not look where distributions keep them.

    npm needs none: it is Node. `--env` of the operator's counts instead of each of them (podman-run(1)).
    """
    inside = places.IN_CONTAINER
    java = f"-Djavax.net.ssl.trustStore={inside}/{places.JAVA_TRUST_FILE} -Djavax.net.ssl.trustStoreType=JKS"
    return {
        **dict.fromkeys(_WHOLE, f"{inside}/{places.CA_FILE}"),
        **dict.fromkeys(_OURS, f"{inside}/{places.AUTHORITY_FILE}"),
        "JAVA_TOOL_OPTIONS": java,
    }
