"""With a gate for a repository, the vault's own routes to its forge do not write branches and tags around it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from terok_host.runtime.kit import gates
from terok_host.sidecars.gate import config as gate_config
from terok_host.sidecars.kit.codec import parse_request
from terok_host.sidecars.kit.refusal import Refusal
from terok_host.sidecars.roster import catalog, compile, files
from terok_host.sidecars.roster.model import Forge, Provider
from terok_host.sidecars.vault import headers
from terok_host.sidecars.vault.decide import Plan, decide
from terok_host.sidecars.vault.gated import commands, graphql
from terok_host.sidecars.vault.gated.gates import UNKNOWN, Gate
from terok_host.sidecars.vault.routes import Route
from terok_host.sidecars.vault.tls.asked import decide_at
from terok_host.sidecars.vault.tls.site import Site
from terok_host.sidecars.vault.tokens import Grant, Places
from tests.lab.waiting import until
from tests.standins.tls import Broker
from tests.standins.upstream import Upstream
from tests.standins.vault import Vault

HUB, LAB = Gate("github.com", "me/Project"), Gate("gitlab.com", "group/sub/skip")
GIT, API, UP = "127.0.0.1:9419", "api.github.com", "uploads.github.com"


@pytest.fixture(scope="module")
def providers() -> Mapping[str, Provider]:
    return compile.compile_files(sorted(str(path) for path in Path(files.bundled()).glob("*.yml"))).providers


Ask = Callable[..., Plan | Refusal]


@pytest.fixture
def ask(providers: Mapping[str, Provider]) -> Ask:
    def asked(
        line: str, name: str = "github", gate: Gate | None = HUB, meta: Mapping[str, Any] | None = None
    ) -> Plan | Refusal:
        effective = catalog.effective(providers[name], meta or {})
        route = Route(name, effective, next(iter(effective.auth)), gate)
        fields = ["Host: h", "Authorization: Bearer good", "Content-Type: application/json", "Content-Length: 9"]
        head = "\r\n".join([f"{line} HTTP/1.1", *fields, "", ""])
        places = Places(headers.CLIENT_AUTH - headers.COOKIES, frozenset())
        lookup = {sha256(b"good").digest(): Grant("work", name)}.get
        return decide(parse_request(head.encode()), places, lookup, lambda grant: route)

    return asked


def refused(decision: Plan | Refusal) -> bool:
    return isinstance(decision, Refusal) and decision.rule == "gate"


WRITES = [
    "POST /graphql?query=mutation%7BdeleteRef%7D",
    "POST /github.com/me/project/git-receive-pack",
    "POST /github.com/me/project.git/git-receive-pack",
    "GET /github.com/me/project.git/info/refs?service=git-receive-pack",
    "GET /github.com/me/project/info/refs?a=b&service=git%2Dreceive-pack",
    "POST /github.com/ME/PROJECT.GIT/git-receive-pack",
    "POST /github.com//me//project.git//git-receive-pack",
    "POST /github.com/me%2Fproject.git/git-receive-pack",
    "POST /github.com/me/pro%6Aect.git/git-receive-pack/",
    "POST /github.com/me;x=y/project/git-receive-pack",
    "POST /repos/me/project/git/refs",
    "PATCH /repos/me/project/git/refs/heads/main",
    "DELETE /repos/me/project/git/refs/heads/main",
    "PUT /repos/me/project/contents/a/b.txt",
    "DELETE /repos/Me/Project/contents/a",
    "POST /repos/me/project/merges",
    "POST /repos/me/project/merge-upstream",
    "PUT /repos/me/project/pulls/1/merge",
    "PUT /repos/me/project/pulls/1%2Fmerge",
    "PUT /repos/me/project/issues/../pulls/1/merge",
    "POST /repos/me/project/branches/main/rename",
    "POST /repos/me/project/releases",
    "PATCH /repos/me/project",
    "PATCH /repos/me/project/",
    "POST /repos/me/project/dispatches",
    "PUT /repos/other/fork/pulls/3/update-branch",
    "POST /user/codespaces",
]
OPEN = [
    "GET /github.com/me/project.git/info/refs?service=git-upload-pack",
    "POST /github.com/me/project.git/git-upload-pack",
    "POST /github.com/me/project.git/info/lfs/objects/batch",
    "GET /repos/me/project/git/refs",
    "GET /repos/me/project/contents/a",
    "POST /repos/me/project/issues",
    "POST /repos/me/project/issues/1/comments",
    "POST /repos/me/project/pulls",
    "PATCH /repos/me/Project/pulls/7",
    "POST /repos/me/project/pulls/7/reviews",
    "POST /github.com/me/other.git/git-receive-pack",
    "POST /github.com/me/project2.git/git-receive-pack",
    "PUT /repos/me/other/contents/me/project",
    "POST /repos/me/project-x/git/refs",
]


@pytest.mark.parametrize("line", WRITES)
def test_no_spelling_of_a_write_goes_around_githubs_gate(ask: Ask, line: str) -> None:
    decision = ask(line)
    assert refused(decision) or (isinstance(decision, Refusal) and decision.rule == "path-form")


@pytest.mark.parametrize("line", OPEN)
def test_reads_and_what_changes_no_ref_pass(ask: Ask, line: str) -> None:
    decision = ask(line)
    assert isinstance(decision, Plan) and decision.judge is None


@pytest.mark.parametrize("line", [line for line in WRITES if ".." not in line])
def test_without_a_gate_nothing_changes(ask: Ask, line: str) -> None:
    assert not refused(ask(line, gate=None))
    assert not refused(ask(line, gate=Gate("gitlab.com", "me/project")))


LAB_WRITES = [
    "POST /gitlab.com/group/sub/skip.git/git-receive-pack",
    "POST /gitlab.com/Group/Sub/Skip/git-receive-pack",
    "POST /api/v4/projects/group%2Fsub%2Fskip/repository/branches",
    "POST /api/v4/projects/group%2fsub%2fskip/repository/commits",
    "PUT /api/v4/projects/group%2Fsub%2F%E2%84%AAkip/x".replace("%E2%84%AAk", "s%E2%84%AA"),
    "PUT /api/v4/projects/group%2F%C5%BFub%2Fsk%C4%B1p/repository/files/a",
    "PUT /api/v4/projects/42/repository/files/a%2Fb",
    "POST /api/v4/projects/42/repository/tags",
    "PUT /api/v4/projects/42/merge_requests/1/merge",
    "PUT /api/v4/projects/other%2Fproject/merge_requests/1/rebase",
    "PUT /api/v4/suggestions/5/apply",
    "PUT /api/v4/groups/group",
    "POST /api/v4/projects/import",
    "PUT /api/v4/projects/group%2Fsub%2Fskip",
]


@pytest.mark.parametrize("line", LAB_WRITES)
def test_no_spelling_of_a_write_goes_around_gitlabs_gate(ask: Ask, line: str) -> None:
    assert refused(ask(line, "gitlab", LAB))


@pytest.mark.parametrize(
    ("line", "judged"),
    [
        ("GET /api/v4/projects/42/repository/branches", False),
        ("PUT /api/v4/projects/other%2Fproject/repository/files/a%2Fb", False),
        ("POST /api/v4/projects/group%2Fsub%2Fskip/merge_requests", True),
        ("POST /api/v4/projects/42/issues/3/notes", True),
        ("POST /api/v4/projects/other%2Fproject/merge_requests/1/notes", True),
        ("POST /gitlab.com/group/sub/skip.git/git-upload-pack", False),
    ],
)
def test_gitlabs_texts_are_judged_and_the_rest_passes(ask: Ask, line: str, judged: bool) -> None:
    decision = ask(line, "gitlab", LAB)
    assert isinstance(decision, Plan) and (decision.judge is commands.refuses) is judged


def test_a_self_managed_gitlab_is_known_by_its_host(ask: Ask) -> None:
    line, meta = "PUT /api/v4/projects/1/x", {"variables": {"host": "git.example.com:8443"}}
    assert refused(ask(line, "gitlab", Gate("git.example.com", "a/b"), meta))
    assert not refused(ask(line, "gitlab", LAB, meta))


@pytest.mark.parametrize("provider", ["github", "copilot"])
@pytest.mark.parametrize("credential", ["good", "theirs", ""])
@pytest.mark.parametrize(
    ("host", "line"),
    [
        ("github.com", "POST /me/project.git/git-receive-pack"),
        ("github.com", "GET /me/project.git/info/refs?service=git-receive-pack"),
        ("api.github.com", "PUT /repos/me/project/contents/a"),
        ("api.github.com", "PUT /repos/me/project/pulls/1/merge"),
        ("api.github.com", "POST /graphql"),
    ],
)
def test_at_the_forges_own_hosts_it_is_the_same(
    providers: Mapping[str, Provider], provider: str, credential: str, host: str, line: str
) -> None:
    """Whatever credential goes along, the container's own among them: it may be one for the repository."""
    if provider == "copilot" and (host == "github.com" or credential == "good"):
        return  # copilot's token is not for these paths
    grant, effective = Grant("work", provider), catalog.effective(providers[provider], {})
    route = Route(provider, effective, "api-key", HUB, foreign_allowed=True)
    fields = [f"Host: {host}", "Content-Type: application/json", "Content-Length: 9"]
    fields += [f"Authorization: Bearer {credential}"] if credential else []
    request = parse_request("\r\n".join([f"{line} HTTP/1.1", *fields, "", ""]).encode())
    lookup = {sha256(b"good").digest(): grant}.get
    places = Places(headers.CLIENT_AUTH - headers.COOKIES, frozenset())
    decision = decide_at(Site(host, 443), request, places, lookup, lambda _: route, [(grant, route)])
    assert refused(decision) or (isinstance(decision, Plan) and decision.judge is not None)


def test_another_route_to_the_same_host_is_only_read(ask: Ask) -> None:
    meta = {"upstream": "https://api.github.com"}
    assert refused(ask("PUT /repos/x/y/contents/a", "custom", HUB, meta))
    assert isinstance(ask("GET /repos/x/y/contents/a", "custom", HUB, meta), Plan)
    assert isinstance(ask("PUT /repos/x/y", "custom", HUB, {"upstream": "https://api.example.com"}), Plan)
    assert refused(ask("POST /mcp/", "copilot", HUB)) and isinstance(
        ask("POST /chat/completions", "copilot", HUB), Plan
    )


def test_a_gate_that_cannot_be_read_counts_for_every_repository(ask: Ask) -> None:
    assert refused(ask("POST /github.com/any/thing.git/git-receive-pack", gate=UNKNOWN))
    assert refused(ask("PUT /repos/any/thing/contents/a", gate=UNKNOWN))
    assert isinstance(ask("POST /repos/any/thing/issues", gate=UNKNOWN), Plan)


@pytest.mark.parametrize(
    ("document", "names"),
    [
        ("{ viewer { login } }", set()),
        ("query { a }", set()),
        ("mutation { deleteRef(input: {refId: 1}) { x } }", {"deleteRef"}),
        ("mutation M($a: [X!] = [{b: 1}]) @d(e: 1) { x: addStar(a: $a) @skip(if: false) { y } z }", {"addStar", "z"}),
        ("query A { a } mutation B { b }", {"b"}),
        ("fragment mutation on X { a } query { ...mutation }", set()),
        ("fragment F on Mutation { deleteRef } mutation { ...F }", None),
        ("mutation { ... on Mutation { deleteRef } }", None),
        ("# mutation { a }\n{ b }", set()),
        ('query { a(b: "} mutation { c }") }', set()),
        ('{ a(b: """\\""" } mutation { c } """) }', set()),
        ('{ a(b: """x""") } mutation { c }', {"c"}),
        ('{ a(b: "\\"") } mutation { c }', {"c"}),
        ("mutation{a{b}}mutation{c}", {"a", "c"}),
        ("\ufeffmutation,{,a,b,}", {"a", "b"}),
        ("mutation { a(", None),
        ("mutation { a) }", None),
        ("mutation { a % }", None),
        ("{ mutation { deleteRef } }", set()),
    ],
)
def test_the_mutations_of_a_document(document: str, names: set[str] | None) -> None:
    assert graphql.mutations(document) == (None if names is None else frozenset(names))


def test_a_long_document_is_read_in_a_moment() -> None:
    assert graphql.mutations("mutation {" + " a" * 200_000 + "}") == frozenset({"a"})
    assert graphql.mutations("{" * 200_000) is None


JSON = b"application/json"


@pytest.mark.parametrize(
    ("kind", "body", "fine"),
    [
        (JSON, b'{"query": "{a}"}', True),
        (b'application/json; charset="UTF-8"', b'{"query": "mutation { addStar }", "variables": {}}', True),
        (JSON, b'{"query": "mutation { deleteRef }"}', False),
        (JSON, b'{"query": "mutation { addStar deleteRef }", "operationName": "x"}', False),
        (JSON, b'{"query": "{a}", "query": "mutation { deleteRef }"}', False),
        (JSON, b'{"query": "mutation { deleteRef }", "query": "{a}"}', False),
        (JSON, b'[{"query": "mutation { deleteRef }"}]', False),
        (JSON, b'{"query": "{a}", "extensions": {"persistedQuery": {}}}', False),
        (JSON, b'{"variables": {}}', False),
        (JSON, '{"query": "mutation { deleteRef }"}'.encode("utf-16"), False),
        (JSON, b"[" * 100_000, False),
        (b"application/graphql", b"mutation { deleteRef }", False),
        (b"application/x-www-form-urlencoded", b"query=mutation{deleteRef}", False),
        (b"application/json; charset=utf-7", b'{"query": "{a}"}', False),
        (b"", b'{"query": "{a}"}', False),
        (JSON, b"", False),
    ],
)
def test_graphql_bodies(kind: bytes, body: bytes, fine: bool) -> None:
    assert (graphql.refuses(kind, body, frozenset({"addStar"})) == "") is fine


@pytest.mark.parametrize(
    ("kind", "query", "body", "fine"),
    [
        (JSON, b"", b'{"body": "see /usr/bin/x and a/b"}', True),
        (JSON, b"", b'{"body": "/usr/bin/x is wrong"}', True),
        (JSON, b"", b'{"body": "done\\n/merge"}', False),
        (JSON, b"", b'{"a": [{"body": "x"}, {"note": "  /tag v1"}]}', False),
        (JSON, b"", b'{"body": "x", "body": "/rebase\\r\\n"}', False),
        (JSON, b"", b'{"body": "\\u002fmerge"}', False),
        (b"application/x-www-form-urlencoded", b"", b"body=%2Fmerge", False),
        (b"application/x-www-form-urlencoded", b"", b"a=b&body=fine", True),
        (JSON, b"body=x%0A/create_merge_request+b", b"{}", False),
        (JSON, b"per_page=1", b"", True),
        (b"multipart/form-data; boundary=x", b"", b"--x\r\n\r\n/merge", False),
        (JSON, b"", b'{"body": "\xff"}', False),
    ],
)
def test_texts_that_gitlab_would_carry_out(kind: bytes, query: bytes, body: bytes, fine: bool) -> None:
    assert (commands.refuses(kind, query, body) == "") is fine


# --- the process ---

FORGE = {"hosts": ["forge.test"], "repository": ["/{repository}"], "graphql": ["/graphql"], "mutations": ["addStar"]}


@pytest.fixture
def vault(make_vault: Callable[..., Vault]) -> Vault:
    """A vault whose provider is a forge."""
    return make_vault(forge={**dict.fromkeys(Forge._fields, ()), **FORGE})


def gate(vault: Vault, url: str = "https://forge.test/me/project.git", direct: str = "refuse") -> None:
    """What `terok gate add` and `set` leave behind."""
    home = vault.layout.gate_home("work")
    os.makedirs(home.root, mode=0o700, exist_ok=True)
    gate_config.save(home, gate_config.GateConfig(url=url, direct=direct))
    gates.publish(vault.layout)


def test_a_gate_counts_at_once_and_its_end_and_its_permission_too(vault: Vault, upstream: Upstream) -> None:
    token = vault.add("p")
    push = "/me/project.git/git-receive-pack"
    assert vault.get(push, token, "POST", b"x").status == 200
    gate(vault)
    reply = vault.get(push, token, "POST", b"x")
    assert (reply.status, reply.headers["X-Terok-Reason"]) == (403, "gate")
    assert "terok gate set work --direct allow" in reply.json()["message"]
    line = vault.audit()[-1]
    assert (line["reason"], line["verdict"]) == ("gate", "refused") and "--direct allow" in line["allow"]
    gate(vault, direct="allow")
    assert vault.get(push, token, "POST", b"x").status == 200
    gate(vault, "git@forge.test:me/project")
    assert vault.get(push, token, "POST", b"x").status == 403
    Path(vault.layout.gate_home("work").config).write_text("{")
    gates.publish(vault.layout)
    assert vault.get("/other/repo/git-receive-pack", token, "POST", b"x").status == 403
    Path(vault.layout.gate_home("work").config).unlink()
    gates.publish(vault.layout)
    assert vault.get(push, token, "POST", b"x").status == 200
    Path(vault.layout.vault_gates).write_text('{"version": 1, "gates": []')
    assert vault.get(push, token, "POST", b"x").status == 403
    assert sum(request.path == push for request in upstream.seen) == 3


def test_a_gate_counts_at_the_forges_own_host_too(vault: Vault, upstream: Upstream) -> None:
    """With a token, with an ambient credential, and with one of the client's own."""
    token = vault.add("p", ambient=True, foreign="allow")
    gate(vault)
    place = f"localhost:{upstream.port}"
    broker = Broker(vault, [place])
    document = json.dumps({"query": "mutation { deleteRef }"}).encode()
    for credential in (f"Bearer {token}", "", "Bearer own"):
        fields = {"Authorization": credential, "Content_Type": "application/json"}
        for path, body in (("/me/project.git/git-receive-pack", b"x"), ("/graphql", document)):
            reply = broker.get(place, path, "POST", body, **fields)
            assert (reply.status, reply.headers["X-Terok-Reason"]) == (403, "gate")
        assert broker.get(place, "/graphql", "POST", b'{"query": "{ a }"}', **fields).status == 200
    assert [request.path for request in upstream.seen] == ["/graphql"] * 3


def test_git_is_told_in_words_that_it_prints(vault: Vault) -> None:
    token = vault.add("p")
    gate(vault)
    vault.up()
    url = f"http://127.0.0.1:{vault.port}/me/project.git"
    command = ["git", "-c", f"http.extraHeader=Authorization: Bearer {token}", "push", url, "HEAD:refs/heads/x"]
    repository = str(Path(vault.layout.data) / "work")
    subprocess.run(["git", "init", "-q", repository], check=True)
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *author, "commit", "-q", "--allow-empty", "-m", "x"], cwd=repository, check=True)
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=30)
    assert done.returncode and "remote: terok vault: The scope has a gate." in done.stderr


def test_a_graphql_body_is_judged_before_anything_is_sent(vault: Vault, upstream: Upstream) -> None:
    token = vault.add("p")
    gate(vault)

    def post(document: str, **fields: str) -> int:
        body = json.dumps({"query": document}).encode()
        return vault.get("/graphql", token, "POST", body, Content_Type="application/json", **fields).status

    assert post("{ viewer { login } }") == 200
    assert upstream.seen[-1].body == b"(%d)" % len(json.dumps({"query": "{ viewer { login } }"}))
    assert post("mutation { addStar }") == 200
    before = len(upstream.seen)
    assert post("mutation { deleteRef }") == 403
    assert post("{ a }", Content_Encoding="gzip") == 403
    assert post(" " * (1 << 20) + "{ a }") == 413
    assert len(upstream.seen) == before


def test_a_judged_body_may_come_in_pieces_and_chunks_and_after_100_continue(vault: Vault, upstream: Upstream) -> None:
    token = vault.add("p")
    gate(vault)
    head = f"POST /graphql HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
    with vault.raw() as sock:
        sock.sendall(f"{head}Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n".encode())
        assert sock.recv(100).startswith(b"HTTP/1.1 100 ")
        for piece in (b'10\r\n{"query": "mutat\r\n', b'14\r\nion { deleteRef } "}\r\n0\r\n', b"\r\n"):
            sock.sendall(piece)
        reply = b""
        while b"deleteRef may" not in reply:
            reply += sock.recv(65536)
        assert b" 403 " in reply.splitlines()[0]
        # the connection serves on
        sock.sendall(f'{head}Content-Length: 16\r\n\r\n{{"query": "'.encode())
        sock.sendall(b'{a}"}')
        assert b" 200 " in sock.recv(65536).splitlines()[0]
    assert [request.body for request in upstream.seen] == [b"(16)"]  # the stand-in keeps the length


def test_bodies_that_wait_to_be_judged_have_a_bound_together(make_vault: Callable[..., Vault]) -> None:
    forge = {**dict.fromkeys(Forge._fields, ()), **FORGE}
    vault = make_vault(forge=forge, settings={"limits": {"JUDGED_ALL_MAX": 64}})
    token = vault.add("p")
    gate(vault)
    head = f"POST /graphql HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"

    def post() -> int:
        return vault.get("/graphql", token, "POST", b'{"query": "{a}"}', Content_Type="application/json").status

    with vault.raw() as sock:
        sock.sendall(f"{head}Expect: 100-continue\r\nContent-Length: 100\r\n\r\n".encode())
        assert sock.recv(100).startswith(b"HTTP/1.1 100 ")
        sock.sendall(b" " * 60)
        until(lambda: post() == 503, 10)
    until(lambda: post() == 200, 10)
