"""Requests to brokered hosts over TLS, through the real vault process: what the loopback address does, and more."""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.standins.tls import Broker, tcp_pair
from tests.standins.upstream import Upstream
from tests.standins.vault import SECRET, Reply, Vault, provider, read_all, wait_line

Make = Callable[..., Vault]
RULES = [
    {"name": "no-admin", "action": "deny", "methods": ["*"], "paths": ["/admin/**"]},
    {"name": "all", "action": "allow", "methods": ["*"], "paths": ["/**"]},
]


class Place:
    """A vault that brokers the stand-in upstream."""

    def __init__(self, vault: Vault, upstream: Upstream) -> None:
        self.vault, self.upstream = vault, upstream
        self.target = f"localhost:{upstream.port}"
        self.broker = Broker(vault, [self.target])

    def get(self, path: str, token: str = "", **options: Any) -> Reply:
        """One request."""
        if token:
            options["Authorization"] = f"Bearer {token}"
        return self.broker.get(self.target, path, **options)


@pytest.fixture
def place(make_vault: Make, upstream: Upstream) -> Place:
    return Place(make_vault(rules=RULES, token_query=["key"], foreign_headers=["x-account"]), upstream)


# --- with a token ---


def test_the_phantom_is_swapped_for_the_secret(place: Place) -> None:
    token = place.vault.add("p")
    reply = place.get("/group%2Fproject?a=%2F", token)
    assert reply.status == 200
    seen = place.upstream.seen[-1]
    assert seen.path == "/group%2Fproject?a=%2F"
    assert seen.header("authorization") == f"Bearer {SECRET}"
    assert seen.header("host") == place.target
    assert token not in str(seen.headers)
    line = place.vault.audit()[-1]
    assert (line["status"], line["upstream"], line["provider"]) == (200, place.target, "p")
    assert "credential" not in line


def test_basic_and_query(place: Place) -> None:
    token = place.vault.add("p")
    assert place.get("/", Authorization="Basic " + base64.b64encode(f"me:{token}".encode()).decode()).status == 200
    assert place.get(f"/?key={token}&b=1").status == 200
    assert place.upstream.seen[-1].path == "/?b=1"
    assert {request.header("authorization") for request in place.upstream.seen} == {f"Bearer {SECRET}"}


def test_many_requests_on_one_connection(place: Place) -> None:
    token = place.vault.add("p")
    client = place.broker.client(place.target)
    for number in range(20):
        client.request("POST", "/x", str(number), {"Authorization": f"Bearer {token}"})
        answer = client.getresponse()
        assert (answer.status, json.loads(answer.read())["size"]) == (200, len(str(number)))
    client.close()
    assert place.upstream.connections == 1


def test_the_rules_of_the_provider_count(place: Place) -> None:
    token = place.vault.add("p")
    for options in ({"token": token}, {}):
        reply = place.get("/admin/x", **options)
        assert (reply.status, reply.json()["reason"]) == (403, "rule:no-admin")
    assert place.upstream.seen == []
    assert place.vault.audit()[-1]["host"] == "localhost"


def test_the_echo_guard_works(place: Place) -> None:
    token = place.vault.add("p")
    reply = place.get("/leak/raw", token)
    assert (reply.status, reply.json()["reason"]) == (502, "echo")


# --- hosts ---


def test_the_host_is_the_connections(place: Place) -> None:
    token = place.vault.add("p")
    head = f"GET / HTTP/1.1\r\nAuthorization: Bearer {token}\r\nHost: "
    for host, status in (
        ("localhost", 421),  # it is at another port
        ("localhost:1", 421),
        ("example.com", 421),
        (f"LOCALHOST:{place.upstream.port}", 200),
        ("", 400),
    ):
        with place.broker.secure(place.target) as sock:
            sock.sendall(f"{head}{host}\r\nConnection: close\r\n\r\n".encode())
            answer = read_all(sock)
        assert answer.startswith(f"HTTP/1.1 {status}".encode()), (host, answer)
    assert len(place.upstream.seen) == 1
    assert {line["reason"] for line in place.vault.audit() if line["status"] == 421} == {"other-host"}


def test_the_host_may_not_change_on_a_kept_connection(place: Place) -> None:
    token = place.vault.add("p")
    client = place.broker.client(place.target)
    for host, status in ((place.target, 200), ("other.example", 421), (place.target, 200)):
        client.request("GET", "/", headers={"Host": host, "Authorization": f"Bearer {token}"})
        answer = client.getresponse()
        answer.read()
        assert answer.status == status
    client.close()
    assert len(place.upstream.seen) == 2


def test_no_host_at_all(place: Place) -> None:
    with place.broker.secure(place.target) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert read_all(sock).startswith(b"HTTP/1.1 400")


def test_a_token_is_good_at_its_own_providers_hosts(make_vault: Make, upstream: Upstream, authority: Any) -> None:
    vault = make_vault()
    with Upstream(authority.context) as other:
        more = provider(f"https://localhost:{other.port}", ca_bundle=authority.file)
        vault.write_routes({"p": provider(f"https://localhost:{upstream.port}", ca_bundle=authority.file), "q": more})
        hosts = [f"localhost:{upstream.port}", f"localhost:{other.port}"]
        broker = Broker(vault, hosts)
        tokens = [vault.add("p"), vault.add("q", "secret-of-the-other")]
        for host, token, status in ((0, 0, 200), (1, 1, 200), (0, 1, 403), (1, 0, 403)):
            reply = broker.get(hosts[host], "/", Authorization=f"Bearer {tokens[token]}")
            assert reply.status == status
            assert status == 200 or reply.json()["reason"] == "other-provider"
        assert (len(upstream.seen), len(other.seen)) == (1, 1)
        assert other.seen[0].header("authorization") == "Bearer secret-of-the-other"


def test_several_providers_at_one_host(make_vault: Make, upstream: Upstream, authority: Any) -> None:
    vault = make_vault()
    url = f"https://localhost:{upstream.port}"
    part = {"url": url, "prefix": "/part/", "host": None, "strip": False, "auth": None, "auth_as": None}
    below = {"url": f"{url}/base", "prefix": "/git/", "host": None, "strip": True, "auth": None, "auth_as": None}
    rules = [{"name": "read", "action": "allow", "methods": ["GET"], "paths": ["/**"]}]
    vault.write_routes(
        {
            "whole": provider(url, ca_bundle=authority.file),
            "part": provider(url, ca_bundle=authority.file, upstreams=[part], rules=rules),
            "below": provider(url, ca_bundle=authority.file, upstreams=[below], rules=rules),
        }
    )
    broker = Broker(vault, [f"localhost:{upstream.port}"])
    tokens = {name: vault.add(name, f"secret-of-{name}") for name in ("whole", "part", "below")}

    def status(path: str, name: str = "", method: str = "GET") -> int:
        token = f"Bearer {tokens[name]}" if name else ""
        return broker.get(f"localhost:{upstream.port}", path, method, Authorization=token).status

    assert status("/x", "whole") == 200
    assert (status("/part/x", "part"), status("/x", "part"), status("/part/x", "part", "POST")) == (200, 403, 403)
    # `strip` belongs to the vault's own address: at the host itself, paths are the host's
    assert (status("/base/me", "below"), status("/me", "below"), status("/basement", "below")) == (200, 403, 403)
    assert [request.path for request in upstream.seen] == ["/x", "/part/x", "/base/me"]
    # without a token, the closest provider's rules count
    assert (status("/x", method="POST"), status("/part/x", method="POST"), status("/base/x", method="POST")) == (
        200,
        403,
        403,
    )


# --- without a token ---


def test_without_a_credential_it_passes_without_one(place: Place) -> None:
    place.vault.add("p")
    assert place.get("/open").status == 200
    assert place.upstream.seen[-1].header("authorization") is None
    assert place.vault.audit()[-1]["credential"] == "none"


def test_an_ambient_credential_goes_with_requests_that_have_none(place: Place) -> None:
    place.vault.add("p", ambient=True)
    assert place.get("/open").status == 200
    assert place.upstream.seen[-1].header("authorization") == f"Bearer {SECRET}"
    assert place.vault.audit()[-1]["credential"] == "ambient"
    assert place.get("/admin/x").status == 403
    # not at the vault's own address
    assert place.vault.get("/open", "").status == 401


def foreign(token: str) -> list[tuple[str, dict[str, str]]]:
    """Requests with a credential that is not the vault's."""
    return [
        ("/", {"Authorization": "Bearer ghp_anothers"}),
        ("/", {"Authorization": "Basic " + base64.b64encode(b"me:secret").decode()}),
        ("/", {"Authorization": "Digest username=me"}),
        ("/", {"X-Api-Key": "anothers"}),
        ("/", {"PRIVATE-TOKEN": "anothers"}),
        ("/", {"X_Api_Key": "anothers"}),
        ("/", {"X-Account": "another"}),
        ("/", {"Cookie": "session=anothers"}),
        ("/?key=anothers", {}),
        ("/?a=1&ke%79=anothers", {}),
        ("/", {"Authorization": f"Bearer {token}", "Cookie": "session=anothers"}),
        ("/", {"Authorization": f"Bearer {token}", "X-Api-Key": "anothers"}),
        (f"/?key={token}", {"Authorization": "Bearer anothers"}),
    ]


@pytest.mark.parametrize("number", range(len(foreign(""))))
@pytest.mark.parametrize("ambient", [False, True])
def test_foreign_credentials_are_refused(place: Place, number: int, ambient: bool) -> None:
    token = place.vault.add("p", ambient=ambient)
    path, headers = foreign(token)[number]
    client = place.broker.client(place.target)
    client.request("GET", path, headers=headers)
    answer = client.getresponse()
    content = json.loads(answer.read())
    client.close()
    assert (answer.status, content["reason"]) == (403, "foreign-credential")
    assert content["allow"] and "anothers" not in json.dumps(content)
    line = place.vault.audit()[-1]
    assert (line["reason"], line["verdict"]) == ("foreign-credential", "refused")
    assert place.upstream.seen == []


def test_foreign_credentials_pass_where_the_operator_allows_it(place: Place) -> None:
    token = place.vault.add("p", foreign="allow", ambient=True)
    assert (
        place.get("/?key=mine", Authorization="Bearer mine", Cookie="a=b", Proxy_Authorization="Basic eA==").status
        == 200
    )
    seen = place.upstream.seen[-1]
    assert (seen.header("authorization"), seen.header("cookie"), seen.path) == ("Bearer mine", "a=b", "/?key=mine")
    assert seen.header("proxy-authorization") is None
    assert place.vault.audit()[-1]["credential"] == "own"
    # the rules count all the same, and beside a token of ours nothing else may stand
    assert place.get("/admin/", Authorization="Bearer mine").status == 403
    assert place.get("/", token, Cookie="a=b").status == 403


def test_another_containers_token_is_foreign(place: Place) -> None:
    place.vault.add("p")
    assert place.get("/", place.vault.token("p", container="another")).status == 403
    assert place.upstream.seen == []


# --- bodies and streams ---


def test_events_arrive_one_by_one(place: Place) -> None:
    token = place.vault.add("p")
    client = place.broker.client(place.target)
    client.request("GET", "/events/3", headers={"Authorization": f"Bearer {token}"})
    answer = client.getresponse()
    for number in range(3):
        assert (answer.readline(), answer.readline()) == (b"event: tick\n", b"data: %d\n" % number)
        assert answer.readline() == b"\n"
        place.upstream.event("next").set()
    assert answer.read() == b""
    client.close()


@pytest.mark.parametrize("chunked", [False, True])
def test_large_bodies_pass_whole_both_ways(place: Place, chunked: bool) -> None:
    block = bytes(range(256)) * 256
    headers = {"Authorization": f"Bearer {place.vault.add('p')}"}
    if not chunked:
        headers["Content-Length"] = str(1600 * len(block))
    client = place.broker.client(place.target, timeout=60)
    client.request("POST", "/up", (block for _ in range(1600)), headers, encode_chunked=chunked)
    answer = json.loads(client.getresponse().read())
    assert (answer["size"], answer["sha256"]) == (len(block) * 1600, hashlib.sha256(block * 1600).hexdigest())
    client.request("GET", f"/big/{len(block) * 1600}", headers={"Authorization": headers["Authorization"]})
    digest = hashlib.sha256()
    response = client.getresponse()
    while piece := response.read(1 << 20):
        digest.update(piece)
    assert digest.hexdigest() == hashlib.sha256(block * 1600).hexdigest()
    client.close()


def test_expect_continue(place: Place) -> None:
    token = place.vault.add("p")
    with place.broker.secure(place.target) as sock:
        head = f"POST /x HTTP/1.1\r\nHost: {place.target}\r\nAuthorization: Bearer {token}\r\nExpect: 100-continue\r\n"
        sock.sendall(f"{head}Content-Length: 4\r\nConnection: close\r\n\r\nbody".encode())
        assert b" 200 OK" in read_all(sock)
    assert place.upstream.seen[-1].header("expect") == "100-continue"


def test_an_answer_that_ends_with_its_connection_ends_in_an_orderly_way(place: Place) -> None:
    token = place.vault.add("p")
    for version, wanted in (("1.0", b"until the end"), ("1.1", b"0\r\n\r\n")):
        context = place.broker.context()
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # a missing close_notify raises
        sock = place.broker.secure(place.target, context=context, ragged=False)
        head = f"GET /until-close HTTP/{version}\r\nHost: {place.target}\r\nAuthorization: Bearer {token}\r\n"
        sock.sendall(f"{head}Connection: close\r\n\r\n".encode())
        assert read_all(sock).endswith(wanted)
        sock.close()


def test_websockets_are_bridged(place: Place) -> None:
    headers = {"Authorization": f"Bearer {place.vault.add('p')}"}
    sock = place.broker.secure(place.target)
    # TLS is up on the socket that it is given, so the scheme is the plain one
    with connect(f"ws://{place.target}/web-socket", sock=sock, additional_headers=headers) as websocket:
        for message in ("hello", b"\0" * 70_000):
            websocket.send(message)
            assert websocket.recv(timeout=10) == message
    assert place.upstream.seen[-1].header("authorization") == f"Bearer {SECRET}"
    wait_line(place.vault, lambda line: line.get("status") == 101)


# --- the vault's own states ---


def test_a_vault_that_was_locked_says_so_inside_tls(place: Place) -> None:
    token = place.vault.add("p")
    assert place.get("/", token).status == 200
    place.vault.store.hold()
    reply = place.get("/", token)
    assert (reply.status, reply.json()["reason"]) == (503, "locked")
    assert "terok vault unlock" in reply.json()["message"]
    place.vault.store.release()
    assert place.get("/", token).status == 200


def test_a_vault_that_starts_locked_says_so_inside_tls(place: Place) -> None:
    token = place.vault.add("p")
    place.vault.store.hold()
    reply = place.get("/", token)
    assert (reply.status, reply.json()["reason"]) == (503, "locked")
    place.vault.store.release()
    assert place.get("/", token).status == 200
    assert place.upstream.seen[-1].header("authorization") == f"Bearer {SECRET}"


def test_a_vault_without_a_store_tells_the_relay(place: Place) -> None:
    place.vault.store.close()
    for path in Path(place.vault.layout.vault).glob("vault.db*"):
        path.unlink()
    one, other = tcp_pair()
    with one, other:
        assert place.broker.give(place.target.encode(), other.fileno()).startswith(b"-There is no vault")


def test_the_authority_is_gone_with_cleanup(place: Place) -> None:
    token = place.vault.add("p")
    assert place.get("/", token).status == 200
    place.vault.store.drop_authority("box")
    with pytest.raises(OSError):
        place.get("/", token)
    assert wait_line(place.vault, lambda line: line.get("reason") == "no-authority")["host"] == "localhost"


def test_nothing_secret_is_written_down(place: Place) -> None:
    token = place.vault.add("p")
    place.get("/", token)
    place.get("/?key=foreign-secret-value")
    text = (
        place.vault.log()
        + Path(place.vault.bundle.audit).read_text()
        + Path(place.vault.layout.vault_audit).read_text()
    )
    for secret in (token, SECRET, "foreign-secret-value", "PRIVATE"):
        assert secret not in text
