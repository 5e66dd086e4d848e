"""The authority of one container: what it signs, what it cannot sign, how it is kept."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from terok_host.sidecars.roster import brokered
from terok_host.sidecars.roster.model import Auth, Catalog, Provider, Upstream
from terok_host.sidecars.store import keys
from terok_host.sidecars.store.records import Authority, LockedError
from terok_host.sidecars.store.store import Store
from terok_host.sidecars.vault.tls.authority import make_authority
from terok_host.sidecars.vault.tls.leaf import issue_leaf
from terok_host.sidecars.vault.tls.leaves import HANDSHAKES_MAX, Leaves
from terok_host.supervisor.ground.errors import TerokError
from terok_host.supervisor.ground.layout import Layout
from tests.standins.stores import unlocked

HOSTS = ("api.github.com", "github.com")


@pytest.fixture(scope="module")
def made() -> Authority:
    return make_authority("box", HOSTS)


def constraints(pem: bytes) -> x509.NameConstraints:
    certificate = x509.load_pem_x509_certificate(pem)
    extension = certificate.extensions.get_extension_for_class(x509.NameConstraints)
    assert extension.critical
    return extension.value


def test_both_certificates_are_constrained_to_the_hosts(made: Authority) -> None:
    for pem in (made.root, made.intermediate):
        found = constraints(pem)
        assert {name.value for name in found.permitted_subtrees or () if isinstance(name, x509.DNSName)} == set(HOSTS)
        excluded = {name.value for name in found.excluded_subtrees or ()}
        assert excluded == {ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")}
        others = [name.value for name in found.permitted_subtrees or () if not isinstance(name, x509.DNSName)]
        assert others == ["terok.invalid", "terok.invalid"]


def test_the_chain_is_short_and_named(made: Authority) -> None:
    root, intermediate = (x509.load_pem_x509_certificate(pem) for pem in (made.root, made.intermediate))
    root.verify_directly_issued_by(root)
    intermediate.verify_directly_issued_by(root)
    lengths = [
        each.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
        for each in (root, intermediate)
    ]
    assert lengths == [1, 0]
    assert "box" in root.subject.rfc4514_string() and "terok" in root.subject.rfc4514_string()
    assert x509.load_pem_x509_certificate(make_authority("box", HOSTS).root).subject != root.subject


def test_the_stored_key_is_not_the_roots(made: Authority) -> None:
    key = serialization.load_pem_private_key(made.key, password=None)
    root, intermediate = (x509.load_pem_x509_certificate(pem) for pem in (made.root, made.intermediate))
    assert isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == "secp256r1"
    assert key.public_key() == intermediate.public_key() != root.public_key()
    assert b"PRIVATE" not in made.root + made.intermediate and "PRIVATE" not in repr(made)


def test_a_leaf_is_for_one_host_and_seven_days(made: Authority) -> None:
    leaf = issue_leaf(made, "api.github.com")
    chain = x509.load_pem_x509_certificates(leaf.pem[leaf.pem.index(b"-----BEGIN CERT") :])
    assert chain[1] == x509.load_pem_x509_certificate(made.intermediate)
    chain[0].verify_directly_issued_by(chain[1])
    names = chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["api.github.com"]
    assert not chain[0].extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    now = datetime.datetime.now(datetime.UTC).timestamp()
    assert abs(leaf.expires - now - 7 * 86400) < 60
    assert "PRIVATE" not in repr(leaf)


def test_a_long_name_needs_no_subject() -> None:
    host = ".".join(["a" * 60, "b" * 60, "example"])
    leaf = issue_leaf(make_authority("c" * 128, [host]), host)
    chain = x509.load_pem_x509_certificates(leaf.pem[leaf.pem.index(b"-----BEGIN CERT") :])
    assert not list(chain[0].subject)
    assert chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).critical


@pytest.mark.parametrize("host", ["example.org", "sub.github.com", "*.github.com", "GITHUB.com", ""])
def test_leaves_outside_the_list_are_refused(made: Authority, host: str) -> None:
    with pytest.raises(TerokError):
        issue_leaf(made, host)


@pytest.mark.parametrize(
    "host", ["*.github.com", "10.0.0.1", "::1", "GitHub.com", "a..b", ".a", "a.", "-a", "a b", "", "a" * 64, "é.com"]
)
def test_authorities_are_for_exact_names(host: str) -> None:
    with pytest.raises(TerokError):
        make_authority("box", ["github.com", host])


def test_no_host_no_authority() -> None:
    with pytest.raises(TerokError):
        make_authority("box", [])


def test_sessions_of_tls_1_2_are_kept_for_some_handshakes_only() -> None:
    """OpenSSL keeps them in the context, a kilobyte each; so the context goes, and a new one has the same leaf."""
    made = make_authority("box", ["a.example", "b.example"])
    given = Leaves(lambda: made, b"")
    first = given.context("a.example")
    assert isinstance(first, ssl.SSLContext)
    assert all(given.context("a.example") is first for _ in range(HANDSHAKES_MAX - 1))
    assert given.context("a.example") is not first
    assert given.context("b.example") is not given.context("a.example")


# --- the store ---


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(str(tmp_path / "data"), str(tmp_path / "run"), str(tmp_path / "config"))
    keys.create_vault(layout)
    return layout


def test_it_is_sealed_in_the_store(layout: Layout, made: Authority) -> None:
    with unlocked(layout) as store:
        assert store.authority("box") is None and store.root_certificate("box") is None
        store.put_authority("box", made)
        assert store.authority("box") == made
        assert store.authority("other") is None
    with Store.open(layout.vault_db, read_only=True) as store:
        assert store.root_certificate("box") == made.root
        with pytest.raises(LockedError):
            store.authority("box")
    content = b"".join(path.read_bytes() for path in Path(layout.vault).glob("vault.db*"))
    assert made.key.splitlines()[1] not in content


def test_it_is_no_credential_of_a_scope(layout: Layout, made: Authority) -> None:
    with unlocked(layout) as store:
        store.put_authority("box", made)
        assert store.describe() == [] and store.describe(scope="") == []
        assert [entry.name for entry in store.describe("authority")] == ["box"]


def test_it_is_dropped(layout: Layout, made: Authority) -> None:
    with unlocked(layout) as store:
        store.put_authority("box", made)
        assert store.drop_authority("box") and not store.drop_authority("box")
        assert store.authority("box") is None


def test_one_of_another_container_does_not_open(layout: Layout, made: Authority) -> None:
    with unlocked(layout) as store:
        store.put_authority("box", made)
        store._db.write("UPDATE items SET name = 'other' WHERE kind = 'authority'")
        with pytest.raises(TerokError):
            store.authority("other")


# --- which hosts ---


def a_provider(*upstreams: Upstream) -> Provider:
    auth = {"api-key": Auth(), "oauth": Auth()}
    return Provider(upstreams=upstreams, auth=auth, variables={"host": "gitlab.com"}, allow_private=True)


def test_brokered_hosts_are_those_of_the_scopes_credentials() -> None:
    forge = a_provider(
        Upstream("https://uploads.github.com", host="uploads.github.com"),
        Upstream("https://github.com", "/github.com/", strip=True),
        Upstream("https://api.github.com"),
        Upstream("https://login.github.com", auth=("oauth",)),
    )
    own = a_provider(Upstream("https://{host}/api"))
    local = a_provider(Upstream("http://127.0.0.1:11434"), Upstream("https://10.0.0.1"))
    catalogue = Catalog({"github": forge, "gitlab": own, "local": local, "unused": a_provider(Upstream("https://no"))})
    held: dict[str, dict[str, object]] = {
        "github": {"auth": "api-key"},
        "gitlab": {"variables": {"host": "git.example:8443"}},
        "local": {},
        "unknown": {},
    }
    hosts = brokered.of_scope(catalogue, held, without={"uploads.github.com"})
    assert hosts == ("api.github.com:443", "git.example:8443", "github.com:443")
    assert [brokered.parse(host) for host in hosts] == [
        ("api.github.com", 443),
        ("git.example", 8443),
        ("github.com", 443),
    ]


@pytest.mark.parametrize("text", ["a", "a:", "a:0", "a:65536", "1.2.3.4:443", "[::1]:443", "*.a:443", "a:4 3", ":443"])
def test_what_is_no_brokered_host(text: str) -> None:
    with pytest.raises(ValueError):
        brokered.parse(text)
