"""The vault, logins, the gate, `vault check`, the relay's helper and the verbs behind an HTTP proxy."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from terok_host.runtime.care import upstreams
from terok_host.runtime.kit import egress as configured
from terok_host.sidecars.airlock.tunnels.client import Tunnels
from terok_host.sidecars.airlock.tunnels.settings import Settings, read_settings, settings_for
from terok_host.sidecars.gate.forge import sync
from terok_host.sidecars.kit.dial import Dialer, Endpoint
from terok_host.sidecars.kit.proxy.egress import Egress, parse_url
from terok_host.sidecars.kit.reactor import Reactor
from terok_host.sidecars.kit.refusal import Refusal
from terok_host.sidecars.kit.stream import Stream
from terok_host.sidecars.login import exchange
from terok_host.sidecars.login.refresh import Exchange, RefreshError
from terok_host.sidecars.store import proxy as proxy_store
from terok_host.sidecars.store.store import Store
from terok_host.supervisor.ground.errors import Exit, TerokError
from tests.lab.waiting import until
from tests.standins.authority import Authority
from tests.standins.forge import PASSWORD as FORGE_PASSWORD
from tests.standins.forge import HttpsForge
from tests.standins.gate import Rig, commit, git, make_upstream
from tests.standins.operator import Operator
from tests.standins.proxy import Proxy
from tests.standins.stores import unlocked
from tests.standins.upstream import Upstream
from tests.standins.vault import SECRET, Vault, provider

NAME = "api.example.test"
USER, PASSWORD = "CORP\\jane", "pass:word%41"
LOGIN = f"{USER}:{PASSWORD}"


@pytest.fixture
def far(authority: Authority) -> Iterator[Upstream]:
    """An upstream whose name only the proxy can resolve."""
    with Upstream(authority.server(NAME)) as running:
        yield running


@pytest.fixture(params=["http", "https"])
def proxy(request: pytest.FixtureRequest, authority: Authority, far: Upstream) -> Iterator[Proxy]:
    """The proxy, which wants a credential, with and without TLS."""
    tls = authority.context if request.param == "https" else None
    with Proxy({NAME: ("127.0.0.1", far.port)}, login=LOGIN, tls=tls) as running:
        yield running


def way_to(proxy: Proxy, authority: Authority) -> Egress:
    return Egress(*parse_url(proxy.url), (), authority.file)


def store_login(store: Store, proxy: Proxy, password: str = PASSWORD) -> None:
    store.put(proxy_store.KIND, proxy_store.SCOPE, proxy.authority, password.encode(), {"user": USER})


@pytest.fixture
def terok(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Operator:
    return Operator(tmp_path, capsys, monkeypatch)


# --- the vault ---


def far_vault(make_vault: Callable[..., Vault], way: Egress, **changes: object) -> Vault:
    return make_vault(
        upstreams=provider(f"https://{NAME}").upstreams,
        allow_private=False,
        settings={"egress": way.to_dict()},
        **changes,
    )


def test_the_vault_goes_through_it(
    make_vault: Callable[..., Vault], authority: Authority, proxy: Proxy, far: Upstream
) -> None:
    """`upstream_ca` vouches for the upstream (as behind a proxy that inspects TLS) and for the proxy."""
    vault = far_vault(make_vault, way_to(proxy, authority), ca_bundle=None)
    store_login(vault.store, proxy)
    token = vault.add("p")
    reply = vault.get("/v1/models", token)
    assert reply.status == 200, reply.body
    assert far.seen[0].header("authorization") == f"Bearer {SECRET}"
    assert proxy.asked == [f"{NAME}:443"]
    assert SECRET.encode() not in b"".join(proxy.heads)
    assert vault.get("/v1/models", token).status == 200
    assert len(proxy.asked) == 1, "the connection is kept"


@pytest.mark.parametrize(("password", "part"), [("", "has none for it"), ("wrong", "refused its credential")])
def test_the_vault_says_what_the_proxy_wants(
    make_vault: Callable[..., Vault], authority: Authority, proxy: Proxy, far: Upstream, password: str, part: str
) -> None:
    vault = far_vault(make_vault, way_to(proxy, authority), ca_bundle=None)
    if password:
        store_login(vault.store, proxy, password)
    reply = vault.get("/", vault.add("p"))
    assert (reply.status, reply.json()["reason"]) == (502, "proxy-credential")
    assert part in reply.json()["message"] and "terok vault proxy set" in reply.json()["message"]
    assert vault.audit()[-1]["reason"] == "proxy-credential"
    assert not far.seen
    # stored now: the next request has it, without a restart
    store_login(vault.store, proxy)
    assert vault.get("/", vault.token("p")).status == 200


def test_the_vault_reaches_private_addresses_as_its_routes_say(
    make_vault: Callable[..., Vault], authority: Authority
) -> None:
    with Proxy({"10.9.8.7": ("127.0.0.1", 9)}) as proxy:
        vault = make_vault(
            upstreams=provider("https://10.9.8.7").upstreams,
            allow_private=False,
            settings={"egress": way_to(proxy, authority).to_dict()},
        )
        reply = vault.get("/", vault.add("p"))
        assert (reply.status, reply.json()["reason"], proxy.asked) == (403, "private-address", [])


# --- logins, and `vault check` ---


def test_a_login_is_refreshed_through_it(authority: Authority, proxy: Proxy, far: Upstream) -> None:
    way = way_to(proxy, authority)
    asked = Exchange(f"https://{NAME}/token", {"X-Test": "y"}, b"{}", None)
    status, _ = exchange.send(asked, way, basic)
    assert status == 200
    assert far.seen[0].path == "/token"
    with pytest.raises(RefreshError, match="terok vault proxy set"):
        exchange.send(asked, way)
    proxy.names.clear()
    with pytest.raises(RefreshError, match="status 502"):
        exchange.send(asked, way, basic)
    with pytest.raises(RefreshError, match="metadata"):
        exchange.send(asked._replace(url="https://metadata.google.internal/token"), way)


def basic() -> str:
    return "Basic " + base64.b64encode(LOGIN.encode()).decode()


def test_the_verbs(terok: Operator, authority: Authority, proxy: Proxy, far: Upstream) -> None:
    assert terok("vault", "proxy", "set", "--user", USER, stdin=PASSWORD).code == Exit.USAGE, "no proxy is configured"
    assert terok("config", "set", "network.upstream_proxy", f"http://{LOGIN}@x:1").code == Exit.USAGE
    assert terok("config", "set", "network.upstream_proxy", proxy.url).code == 0
    assert terok("config", "set", "network.upstream_ca", authority.file).code == 0
    assert terok("vault", "proxy", "set", "--user", USER, stdin=f"{PASSWORD}\n").code == 0
    shown = terok("vault", "proxy", "show", "--json").json()
    assert (shown["proxy"], shown["credentials"]) == (proxy.url, {proxy.authority: USER})
    said = [terok("vault", "proxy", "show"), terok("vault", "list"), terok("config", "show")]
    assert all(PASSWORD not in ran.out + ran.err for ran in said)

    added = terok("vault", "add", "work", "custom", "--upstream", f"https://{NAME}", stdin="real-secret-value")
    assert added.code == 0, added.err
    ran = terok("vault", "check", "work", "custom", "--json")
    assert (ran.code, ran.json()["proxy"]) == (0, proxy.url), ran.err
    assert proxy.asked == [f"{NAME}:443"]

    assert terok("vault", "proxy", "remove").code == 0
    ran = terok("vault", "check", "work", "custom")
    assert (ran.code, "terok vault proxy set" in ran.err) == (Exit.FAILURE, True)
    assert terok("vault", "proxy", "remove").code == Exit.NOT_FOUND


def test_an_export_has_it_and_an_import_brings_it_back(terok: Operator, tmp_path: Path) -> None:
    terok("config", "set", "network.upstream_proxy", "http://proxy.test:3128")
    assert terok("vault", "proxy", "set", "--user", USER, stdin=PASSWORD).code == 0
    file = tmp_path / "export.json"
    assert terok("vault", "export", str(file), "--reveal").code == 0
    assert terok("vault", "proxy", "remove").code == 0
    ran = terok("vault", "import", str(file))
    assert ran.code == 0, ran.err
    assert terok("vault", "proxy", "show", "--json").json()["credentials"] == {"proxy.test:3128": USER}
    file.write_text(file.read_text().replace("proxy.test:3128", "x@proxy.test:3128"))
    assert terok("vault", "import", str(file)).code == Exit.USAGE


@pytest.mark.parametrize("kind", ["directory", "writable", "empty", "missing"])
def test_upstream_ca_is_a_file_of_the_operators(
    terok: Operator, authority: Authority, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "ca.pem"
    if kind == "directory":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(Path(authority.file).read_bytes() if kind == "writable" else b"")
        path.chmod(0o666 if kind == "writable" else 0o600)
    terok("config", "set", "network.upstream_ca", str(path))
    ran = terok("vault", "proxy", "show")
    assert (ran.code, "network.upstream_ca" in ran.err) == (Exit.USAGE, True)


def test_doctor_asks_the_proxy(proxy: Proxy, authority: Authority, far: Upstream) -> None:
    way = way_to(proxy, authority)
    states = [upstreams.result(way, upstreams.ask(way, credential)).state for credential in (basic(), "")]
    assert states == ["WARN", "FAIL"], "it does not resolve example.com; it wants a credential"
    proxy.names[upstreams.ASKED] = ("127.0.0.1", far.port)
    assert upstreams.result(way, upstreams.ask(way, basic())).state == "ok"
    gone = way._replace(port=1)
    assert upstreams.result(gone, upstreams.ask(gone, "")).state == "FAIL"


# --- the gate ---


def test_the_gate_fetches_and_pushes_through_it(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "forge").mkdir()
    repo = make_upstream(tmp_path / "forge" / "up.git")
    git("config", "http.receivepack", "true", cwd=repo)
    forge = HttpsForge(repo.parent, tmp_path)
    rig = Rig(tmp_path)
    port = int(forge.url.rpartition(":")[2])
    try:
        with Proxy({"forge.test": ("127.0.0.1", port)}, login=LOGIN) as proxy:
            way = Egress(*parse_url(proxy.url))
            rig.egress = way
            with unlocked(rig.layout) as store:
                store.put("credential", "proj", "forge", FORGE_PASSWORD.encode(), {"auth": "basic"})
            url = f"https://forge.test:{port}/up.git"
            rig.configure(url, credential="forge", ca_file=str(forge.ca_file), mode="online")
            with pytest.raises(TerokError, match="407"):
                sync.synchronise(rig.site, rig.configure_again())
            with unlocked(rig.layout) as store:
                store_login(store, proxy)
            sync.synchronise(rig.site, rig.configure_again())
            rig.start()
            work = tmp_path / "work"
            git("clone", "-q", rig.url(), work, cwd=tmp_path)
            git("checkout", "-q", "-b", "agent/work", cwd=work)
            tip = commit(work, "new")
            git("push", "-q", "origin", "agent/work", cwd=work)
            assert git("rev-parse", "agent/work", cwd=repo).stdout.strip() == tip
            assert set(proxy.asked) == {f"forge.test:{port}"}
            assert FORGE_PASSWORD not in str(proxy.heads)
            with pytest.raises(TerokError, match="upstream_proxy"):
                rig.configure_again(url="ssh://git@forge.test/up.git")
                sync.synchronise(rig.site, rig.configure_again())
    finally:
        rig.stop()
        forge.close()
    assert PASSWORD not in rig.log.read_text() + Path(rig.home.log).read_text()


# --- the relay's helper ---


@pytest.fixture
def tunnels(vault: Vault, proxy: Proxy, authority: Authority) -> Iterator[tuple[Reactor, Tunnels, list[str]]]:
    """The relay's end of a helper that runs."""
    reactor = Reactor(strict=True)
    settings = settings_for(vault.layout, way_to(proxy, authority))
    link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # a process of its own: SQLite does not survive a fork with an open database, and this process has one
    words = [sys.executable, "-c", HELPER, json.dumps(settings), str(theirs.fileno())]
    with theirs, subprocess.Popen(words, pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        link.setblocking(False)
        gone: list[str] = []
        way = way_to(proxy, authority)
        yield reactor, Tunnels(reactor, link, way, Dialer(reactor), lambda: gone.append("gone")), gone
        link.close()
        assert process.wait(10) == 0
    reactor.close()


HELPER = """
import json, socket, sys
from terok_host.sidecars.airlock.tunnels import helper, settings
helper.serve(socket.socket(fileno=int(sys.argv[2])), settings.read_settings(json.loads(sys.argv[1])))
"""


def ask(reactor: Reactor, tunnels: Tunnels, *hosts: str) -> list[tuple[Stream | None, Refusal | None]]:
    results: list[tuple[Stream | None, Refusal | None]] = []
    for host in hosts:
        tunnels.dial(Endpoint(host, 443, tls=False), lambda *result: results.append(result))
    until(lambda: reactor.wait(0.01) or len(results) == len(hosts), 20)
    return results


def test_the_relay_gets_connected_sockets(
    vault: Vault, proxy: Proxy, far: Upstream, authority: Authority, tunnels: tuple[Reactor, Tunnels, list[str]]
) -> None:
    reactor, relay, _ = tunnels
    assert relay.via(NAME) == proxy.authority
    store_login(vault.store, proxy)
    results = ask(reactor, relay, *[NAME] * 20)
    assert [refusal for _, refusal in results] == [None] * 20
    socks = [stream.hand_over() for stream, _ in results if stream is not None]
    context = ssl.create_default_context(cafile=authority.file)
    socks[0].setblocking(True)
    socks[0].settimeout(10)
    with context.wrap_socket(socks[0], server_hostname=NAME) as secure:
        secure.sendall(f"GET /through HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode())
        assert secure.recv(15) == b"HTTP/1.1 200 OK"
    for sock in socks[1:]:
        sock.close()
    until(lambda: not proxy.busy, 10)


def test_what_the_relay_is_told_when_there_is_none(
    vault: Vault, proxy: Proxy, tunnels: tuple[Reactor, Tunnels, list[str]]
) -> None:
    reactor, relay, _ = tunnels
    assert [refusal.rule for _, refusal in ask(reactor, relay, NAME) if refusal] == ["proxy-credential"]
    store_login(vault.store, proxy)
    rules = [refusal.rule for _, refusal in ask(reactor, relay, "unknown.test", "10.0.0.1", "127.1") if refusal]
    assert sorted(rules) == ["private-address", "private-address", "proxy-refused"]
    assert set(proxy.asked) == {f"{NAME}:443", "unknown.test:443"}


def test_a_helper_that_is_gone_ends_what_waits_and_the_relay(
    vault: Vault, proxy: Proxy, tunnels: tuple[Reactor, Tunnels, list[str]]
) -> None:
    reactor, relay, gone = tunnels
    proxy.mute = True
    results: list[tuple[Stream | None, Refusal | None]] = []
    relay.dial(Endpoint(NAME, 443, tls=False), lambda *result: results.append(result))
    until(lambda: reactor.wait(0.01) or proxy.event("asked").is_set(), 20)
    relay._link.shutdown(socket.SHUT_RDWR)  # the kernel does the same at its death
    until(lambda: reactor.wait(0.01) or gone, 20)
    assert [refusal.rule for _, refusal in results if refusal] == ["proxy-helper"]


@pytest.mark.parametrize("document", [1, {}, {"egress": None, "store": 1, "key_files": []}])
def test_settings_that_are_not_understood(document: object) -> None:
    with pytest.raises(ValueError, match="not understood"):
        read_settings(document)


def test_no_settings_no_proxy(vault: Vault) -> None:
    assert read_settings(None) is None
    written = settings_for(vault.layout, Egress(host="p.test", port=1))
    assert isinstance(read_settings(written), Settings)
    assert configured.authorization(vault.layout, Egress(host="p.test", port=1)) == ""
    # a credential is for one proxy: another URL in the configuration does not get it
    vault.store.put(proxy_store.KIND, proxy_store.SCOPE, "p.test:1", b"secret", {"user": "jane"})
    found = [configured.authorization(vault.layout, Egress(host="p.test", port=port)) for port in (1, 2)]
    assert [bool(text) for text in found] == [True, False]
