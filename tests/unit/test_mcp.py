"""The MCP sidecar without Podman: servers are programs of this machine; one of the clients is the reference one."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from terok_host.sidecars.kit.reactor import Reactor
from terok_host.sidecars.mcp import agents, jsonrpc, limits, offer, servers
from terok_host.sidecars.mcp.names import names
from terok_host.sidecars.mcp.offer import Offer
from terok_host.sidecars.mcp.servers import Server
from terok_host.sidecars.mcp.service import Service, Shelf
from terok_host.sidecars.roster.model import AgentFile
from terok_host.supervisor.ground.audit import Audit
from terok_host.supervisor.ground.errors import TerokError
from tests.standins import mcp_server

TOOL: jsonrpc.Object = json.loads(json.dumps(mcp_server.TOOL))
ANOTHER: jsonrpc.Object = json.loads(json.dumps(mcp_server.ANOTHER))
STANDIN = [sys.executable, "-I", mcp_server.__file__]
TIME = [sys.executable, "-m", "mcp_server_time", "--local-timezone", "UTC"]


class Running:
    """A service in a thread, and the programs that it started."""

    def __init__(self, place: Path) -> None:
        self.directory = place / "servers"
        self.directory.mkdir()
        self.audit = place / "audit.jsonl"
        self.programs: list[subprocess.Popen[bytes]] = []
        self.agents: list[Agent] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.reactor = Reactor()
        self.service = Service(
            self.reactor,
            [self.listener],
            Shelf(str(self.directory)),
            self.open,
            Audit(str(self.audit), "mcp"),
            scope="work",
            idle_seconds=0,
            port=self.port,
        )
        self.service.start()
        self.thread = threading.Thread(target=self.reactor.run)
        self.thread.start()

    def add(
        self, name: str, command: list[str], tools: tuple[str, ...] | None = None, accepted: Offer | None = None
    ) -> None:
        made = accepted if accepted is not None else Offer("", {"echo": TOOL})
        server = Server(name, "work", f"mcp-work-{name}", tuple(command), tools, made)
        path = self.directory / f"{name}.json"
        path.with_suffix(".new").write_text(server.to_text())
        path.with_suffix(".new").replace(path)

    def open(self, name: str) -> socket.socket | None:
        server = servers.load(str(self.directory), name)
        if server is None:
            return None
        here, there = socket.socketpair()
        with there:
            fd = there.fileno()
            program = subprocess.Popen(list(server.command), stdin=fd, stdout=fd, stderr=subprocess.DEVNULL)
        self.programs.append(program)
        return here

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.audit.read_text().splitlines()]

    def close(self) -> None:
        self.reactor.in_thread(lambda: self.service.stop)
        self.thread.join()
        self.reactor.close()
        for agent in self.agents:
            agent.http.close()
        for program in self.programs:
            program.kill()
            program.wait()
        self.listener.close()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path)
    yield made
    made.close()


class Agent:
    """A client with one connection and one session."""

    def __init__(self, running: Running, name: str) -> None:
        self.http = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
        self.target, self.session = f"/mcp/{name}", ""
        running.agents.append(self)
        self.greeting = self.ask("initialize", protocolVersion="2025-06-18", capabilities={"sampling": {}})

    def post(self, body: bytes, **fields: str) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json", **({"Mcp-Session-Id": self.session} if self.session else {})}
        self.http.request("POST", self.target, body, headers | fields)
        answer = self.http.getresponse()
        self.session = answer.headers.get("Mcp-Session-Id", self.session)
        return answer.status, answer.read()

    def ask(self, method: str, **params: object) -> dict[str, Any]:
        message = {"jsonrpc": "2.0", "id": "x", "method": method, "params": params}
        status, body = self.post(json.dumps(message).encode())
        answer: dict[str, Any] = json.loads(body)
        assert (status, answer["id"]) == (200, "x"), answer
        return answer

    def call(self, **arguments: object) -> str:
        answer = self.ask("tools/call", name="echo", arguments=arguments)
        return str(answer["error"]["message"] if "error" in answer else answer["result"]["content"][0]["text"])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "JSON"),
        (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}', "JSON"),
        (b'{"jsonrpc":"2.0","id":NaN,"method":"ping"}', "JSON"),
        (b"\xff", "JSON"),
        (b"[" * 100_000, "JSON"),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":' + b'{"a":' * 70 + b"1" + b"}" * 71, "nested"),
        (b'{"jsonrpc":"2.0","id":' + b"9" * 5000 + b',"method":"ping"}', "JSON"),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', "batches"),
        (b'{"id":1,"method":"ping"}', "2.0"),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', "id"),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', "id"),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', "id"),
        (b'{"jsonrpc":"2.0","id":1,"method":["ping"]}', "method"),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}', "parameters"),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","result":1}', "request and a response"),
        (b'{"jsonrpc":"2.0","id":1}', "neither"),
        (b'{"jsonrpc":"2.0","id":1,"error":"x"}', "error"),
    ],
)
def test_a_message_that_can_be_read_in_two_ways_is_none(data: bytes, why: str) -> None:
    with pytest.raises(jsonrpc.BadMessage, match=why):
        jsonrpc.read(data)


def test_a_message_that_needs_too_much_memory_is_none() -> None:
    code = f"""
import resource
from terok_host.sidecars.mcp import jsonrpc
resource.setrlimit(resource.RLIMIT_AS, (200 << 20, 200 << 20))
try:
    jsonrpc.read(b"[" + b"[]," * ({limits.LINE_MAX} // 3) + b"0]")
except jsonrpc.BadMessage as bad:
    print(bad.why)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "the message is not valid JSON\n", done.stderr


def test_what_is_sent_is_one_line_whatever_it_says() -> None:
    line = jsonrpc.call(1, "tools/call", {"name": "a\n{}", "arguments": {"\u2028": "\ud800\r\n"}})
    assert line.isascii()
    assert not {b"\n", b"\r"} & {line[at : at + 1] for at in range(len(line))}
    assert jsonrpc.read(line) == jsonrpc.Call(1, "tools/call", {"name": "a\n{}", "arguments": {"\u2028": "\ud800\r\n"}})


def test_only_accepted_texts_that_are_still_true_are_offered() -> None:
    tool, other = TOOL, ANOTHER
    accepted = Offer("", {"echo": tool, "gone": tool})
    assert offer.allowed(accepted, {"echo": tool, "new": tool}, None) == {"echo": tool}
    assert offer.allowed(accepted, {"echo": other}, None) == {}
    assert offer.allowed(accepted, {"echo": tool}, ("gone",)) == {}
    assert accepted.digest != Offer("", {"echo": other, "gone": tool}).digest
    shown = offer.difference(accepted, Offer("Be kind.", {"echo": other, "gone": tool}))
    assert "-  description: Says it again." in shown
    assert "+instructions: Be kind." in shown
    assert offer.difference(accepted, accepted) == []


@pytest.mark.parametrize(
    "tools", [None, [1], [{"name": "a b"}], [{"name": "a"}], [{"name": "a", "inputSchema": {}}] * 2]
)
def test_a_list_of_tools_that_is_none_is_refused(tools: Any) -> None:
    with pytest.raises(offer.BadOffer):
        offer.page_of({"tools": tools})


def test_servers_are_kept_and_damage_is_named(running: Running) -> None:
    running.add("time", ["a", "b c"], ("echo",))
    assert names(str(running.directory)) == ["time"]
    server = servers.load(str(running.directory), "time")
    assert server is not None
    assert (server.command, server.tools, server.accepted.tools["echo"]) == (("a", "b c"), ("echo",), TOOL)
    (running.directory / "time.json").write_text("{}")
    with pytest.raises(TerokError, match="damaged"):
        servers.load(str(running.directory), "time")
    with pytest.raises(TerokError, match="no name"):
        servers.load(str(running.directory), "../time")
    assert servers.load(str(running.directory), "other") is None


def test_a_call_passes_and_is_in_the_audit_without_its_arguments(running: Running) -> None:
    running.add("toy", [*STANDIN, "plain"])
    agent = Agent(running, "toy")
    assert agent.greeting["result"]["serverInfo"]["name"] == "plain"
    assert agent.call(secret="s3cret") == '{"secret": "s3cret"}'
    assert running.entries()[-1]["verdict"] == "allowed"
    assert "s3cret" not in running.audit.read_text()


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        ("ancient", "speaks none"),
        ("twice", "twice"),
        ("pages", "twice"),
        ("endless", "16 MiB"),
    ],
)
def test_a_server_that_does_not_keep_to_mcp_is_not_used(running: Running, behaviour: str, why: str) -> None:
    running.add("toy", [*STANDIN, behaviour])
    assert why in Agent(running, "toy").greeting["error"]["message"]
    assert running.programs[0].wait(10) is not None
    assert running.entries()[-1]["verdict"] == "refused"


def test_a_server_that_is_missing_or_ends_is_named(running: Running) -> None:
    assert "no server" in Agent(running, "toy").greeting["error"]["message"]
    running.add("toy", [*STANDIN, "dying"])
    agent = Agent(running, "toy")
    assert "has ended" in agent.call()
    message = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
    assert agent.post(message)[0] == 404  # clients begin another session then


def test_a_server_that_asks_for_more_gets_an_error(running: Running) -> None:
    running.add("toy", [*STANDIN, "asking"])
    assert "terok does not pass this on" in Agent(running, "toy").call()


def test_answers_that_are_not_to_be_read_are_passed_over(running: Running) -> None:
    running.add("toy", [*STANDIN, "forging"])
    assert Agent(running, "toy").call(a=1) == '{"a": 1}'


def test_a_text_that_changes_in_a_session_ends_its_use(running: Running) -> None:
    running.add("toy", [*STANDIN, "changing"])
    agent = Agent(running, "toy")
    assert agent.call(a=1) == '{"a": 1}'
    # what comes while the list is read again waits for it
    assert "changed" in agent.call(a=2)
    assert agent.ask("tools/list")["result"] == {"tools": []}


def test_a_client_that_leaves_cancels_its_call(running: Running, tmp_path: Path) -> None:
    told = tmp_path / "told"
    running.add("toy", ["/bin/sh", "-c", f"exec {' '.join(STANDIN)} slow 2>{told}"])
    agent = Agent(running, "toy")
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo", "arguments": {}}}
    agent.http.request(
        "POST", agent.target, json.dumps(message), {"Content-Type": "application/json", "Mcp-Session-Id": agent.session}
    )
    assert agent.http.sock is not None
    agent.http.sock.close()
    agent.http.close()
    other = Agent(running, "toy")  # its own program: the first one's session goes on beside it
    assert other.session != agent.session
    other.http.request("DELETE", other.target, headers={"Mcp-Session-Id": other.session})
    assert other.http.getresponse().status == 200
    assert running.programs[1].wait(10) == 0


def test_sessions_are_bounded_and_the_oldest_idle_one_ends(running: Running) -> None:
    running.add("toy", [*STANDIN, "plain"])
    first = Agent(running, "toy")
    others = [Agent(running, "toy") for _ in range(limits.SESSIONS_MAX)]
    assert running.programs[0].wait(10) == 0
    assert first.post(b'{"jsonrpc":"2.0","id":1,"method":"ping"}')[0] == 404
    assert others[-1].call(a=1) == '{"a": 1}'


def test_another_servers_session_is_not_this_ones(running: Running) -> None:
    running.add("one", [*STANDIN, "plain"])
    running.add("two", [*STANDIN, "plain"], tools=())
    agent = Agent(running, "one")
    agent.target = "/mcp/two"
    assert agent.post(b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}')[0] == 404


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("GET /mcp/toy HTTP/1.1\r\nHost: {host}\r\n\r\n", 405),
        ("GET /.well-known/oauth-authorization-server HTTP/1.1\r\nHost: {host}\r\n\r\n", 404),
        ("POST /mcp/toy HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n", 403),
        ("POST /mcp/toy HTTP/1.1\r\nHost: {host}\r\nOrigin: https://evil.example\r\nContent-Length: 0\r\n\r\n", 403),
        ("POST /mcp/toy HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n", 415),
        (
            "POST /mcp/toy HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            "Content-Length: 9999999\r\n\r\n",
            413,
        ),
        ("POST /mcp/../x HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n", 404),
        ("POST /mcp/toy HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n", 400),
        (
            "POST /mcp/toy HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 1\r\n"
            "Mcp-Session-Id: a\r\nMcp-Session-Id: b\r\n\r\n1",
            400,
        ),
    ],
)  # fmt: skip
def test_requests_that_no_client_of_mcp_sends(running: Running, request_text: str, status: int) -> None:
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as client:
        client.sendall(request_text.format(host=f"127.0.0.1:{running.port}").encode())
        assert client.recv(65536).startswith(f"HTTP/1.1 {status} ".encode())
    audited = bool(running.audit.read_text())
    assert audited is (status not in (404, 405) and "application/json\r\nContent-Length: 0" not in request_text)


def test_the_reference_client_and_a_stock_server(running: Running) -> None:
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    now = _asked(TIME)
    running.add("time", TIME, ("get_current_time",), Offer("", now))
    assert set(now) == {"get_current_time", "convert_time"}

    async def use() -> tuple[list[str], str]:
        async with (
            streamable_http_client(f"http://127.0.0.1:{running.port}/mcp/time") as streams,
            ClientSession(streams[0], streams[1]) as session,
        ):
            await session.initialize()
            tools = await session.list_tools()
            result = await session.call_tool("get_current_time", {"timezone": "Europe/Paris"})
            return [tool.name for tool in tools.tools], str(result.content[0])

    names_of_tools, text = asyncio.run(use())
    assert names_of_tools == ["get_current_time"]
    assert "Europe/Paris" in text
    assert running.programs[0].wait(20) == 0


def _asked(command: list[str]) -> dict[str, jsonrpc.Object]:
    """What a server lists, asked by hand."""
    who: jsonrpc.Object = {"name": "t", "version": "1"}
    lines = [
        jsonrpc.call(1, "initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": who}),
        jsonrpc.call(None, "notifications/initialized", {}),
        jsonrpc.call(2, "tools/list", {}),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as program:
        assert program.stdin and program.stdout
        program.stdin.write(b"".join(line + b"\n" for line in lines))
        program.stdin.flush()
        program.stdout.readline()
        reply = jsonrpc.read(program.stdout.readline())
    assert isinstance(reply, jsonrpc.Reply)
    return offer.page_of(reply.result)[0]


def test_agents_find_the_servers_in_their_files() -> None:
    import tomllib

    files = {
        ".claude.json": AgentFile(".claude.json", '{"hasCompletedOnboarding": true}\n', 0o600),
        ".codex/config.toml": AgentFile(".codex/config.toml", 'model = "x"\n\n[a]\nb = 1\n', 0o600),
    }
    told = agents.with_servers(files, ["claude", "codex", "gemini", "opencode", "vibe"], ["time", "fetch-2"])
    url = "http://127.0.0.1:9417/mcp/time"
    claude = json.loads(told[".claude.json"].content)
    assert claude["hasCompletedOnboarding"] is True
    assert claude["mcpServers"]["time"] == {"type": "http", "url": url}
    codex = tomllib.loads(told[".codex/config.toml"].content)
    assert (codex["a"], codex["mcp_servers"]["time"]) == ({"b": 1}, {"url": url})
    assert json.loads(told[".gemini/settings.json"].content)["mcpServers"]["fetch-2"]["httpUrl"].endswith("fetch-2")
    assert json.loads(told[".config/opencode/opencode.json"].content)["mcp"]["time"]["url"] == url
    assert agents.with_servers(files, ["claude"], []) == files
    assert os.path.commonprefix([url, agents.BASE]) == agents.BASE
