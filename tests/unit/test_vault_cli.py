"""`terok vault` as an operator uses it: secrets come in by stdin or a prompt, and never out unasked."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from terok_host.sidecars.store.credential import Credential
from terok_host.sidecars.vault.books.journal import Journal
from terok_host.sidecars.vault.books.ledger import Ledger
from terok_host.supervisor.ground.errors import Exit
from tests.standins.authority import Authority
from tests.standins.operator import PASSPHRASE, Operator, stored


@pytest.fixture
def terok(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Operator:
    return Operator(tmp_path, capsys, monkeypatch)


def test_a_secret_of_another_shape_is_stored_when_forced_and_the_check_is_offered(terok: Operator) -> None:
    refused = terok("vault", "add", "work", "anthropic", stdin="ghp_0123456789\n")
    assert refused.code == Exit.REFUSED
    assert "ghp_0123456789" not in refused.err
    done = terok("vault", "add", "work", "anthropic", "--force", stdin="ghp_0123456789\n")
    assert done.code == Exit.OK
    assert "terok vault check work anthropic" in done.err


def test_several_custom_credentials_in_one_scope(terok: Operator) -> None:
    for name in ("custom-one", "custom-two"):
        assert terok("vault", "add", "work", name, "--upstream", f"https://{name}.example", stdin=f"{name}\n").code == 0
    with terok.store() as store:
        assert [entry.name for entry in store.describe("credential")] == ["custom-one", "custom-two"]
    assert "no provider" in terok("vault", "add", "work", "other-one", stdin="x\n").err


def test_a_second_add_is_refused_and_rotate_keeps_the_route(terok: Operator) -> None:
    terok.add("work", "gitlab", "one", "--set", "host=git.example.com")
    again = terok.add("work", "gitlab", "two")
    assert again.code == Exit.REFUSED
    assert "terok vault rotate work gitlab" in again.err
    assert terok("vault", "rotate", "work", "gitlab", stdin="three\n").code == Exit.OK
    with terok.store() as store:
        item = store.get("credential", "work", "gitlab")
        assert item is not None
        assert (item.secret, item.version) == (b"three", 2)
        assert item.meta["variables"] == {"host": "git.example.com"}


def test_what_a_credential_allows_is_said_and_changed(terok: Operator) -> None:
    assert terok.add("work", "mistral", "one", "--ambient", "--foreign", "allow").code == Exit.OK
    assert terok.add("work", "gitlab", "two").code == Exit.OK

    def allowed(name: str) -> tuple[object, object]:
        with terok.store() as store:
            meta = next(entry.meta for entry in store.describe("credential") if entry.name == name)
        return meta.get("ambient"), meta.get("foreign")

    assert (allowed("mistral"), allowed("gitlab")) == ((True, "allow"), (None, None))
    said = terok("vault", "status").out
    assert "work/mistral: ambient" in said and "work/mistral: requests may carry" in said and "work/gitlab" not in said
    assert "ambient" in terok("vault", "list").out
    assert len(json.loads(terok("vault", "status", "--json").out)["allows"]) == 2
    assert terok("vault", "set", "work", "mistral", "--ambient", "off").code == Exit.OK
    assert terok("vault", "set", "work", "gitlab", "--ambient", "on", "--foreign", "refuse").code == Exit.OK
    assert (allowed("mistral"), allowed("gitlab")) == ((None, "allow"), (True, None))
    assert terok("vault", "set", "work", "mistral", "--foreign", "refuse").code == Exit.OK
    assert allowed("mistral") == (None, None)
    assert terok("vault", "set", "work", "mistral").code == Exit.USAGE
    assert terok("vault", "set", "work", "openai", "--ambient", "on").code == Exit.NOT_FOUND
    with terok.store() as store:
        item = store.get("credential", "work", "mistral")
        assert item is not None and (item.secret, item.version) == (b"one", 1)


@pytest.mark.parametrize(("words", "stdin", "problem"), [
    (["work", "nothing"], "x", "no provider"),
    (["../work", "mistral"], "x", "not a usable name"),
    (["work", "mistral"], "", "the input is empty"),
    (["work", "mistral"], "two words", "no header can carry it"),
    (["work", "mistral"], "caf\u00e9", "no header can carry it"),
    (["work", "mistral", "--auth", "oauth"], "x", "takes api-key"),
    (["work", "anthropic", "--auth", "oauth"], "no json", "A login must be JSON"),
    (["work", "custom"], "x", "no default upstream"),
    (["work", "custom", "--upstream", "http://llm.example.com"], "x", "in the clear"),
    (["work", "custom", "--upstream", "https://u:p@llm.example.com"], "x", "without user"),
    (["work", "custom", "--upstream", "https://a.example.com", "--ca-bundle", "/etc/hosts"], "x", "not a CA bundle"),
    (["work", "custom", "--upstream", "https://a.example.com", "--header", "A: b"], "x", "not a valid header name"),
    (["work", "anthropic"], "ghp_0123456789", "begins like one of GitHub"),
    (["work", "gitlab", "--set", "hots=x"], "x", "has these values: host"),
    (["work", "gitlab", "--set", "host=a b"], "x", "not usable in a route"),
    (["work", "mistral", "--expires", "tomorrow"], "x", "not a date"),
    (["work", "pypi", "--user", "a:b"], "x", "without a colon"),
])  # fmt: skip
def test_what_cannot_work_is_refused_before_it_is_stored(
    terok: Operator, words: list[str], stdin: str, problem: str
) -> None:
    ran = terok("vault", "add", *words, stdin=stdin)
    assert ran.code not in (Exit.OK, 1 << 8)
    assert problem in ran.err
    assert not Path(terok.layout.vault_db).exists()


def test_secrets_are_shown_only_with_reveal(terok: Operator) -> None:
    terok.add()
    for words in (
        ["list"],
        ["show", "work", "mistral"],
        ["status"],
        ["list", "--json"],
        ["show", "work", "mistral", "--json"],
    ):
        ran = terok("vault", *words)
        assert ran.code == Exit.OK
        assert "real-secret-value" not in ran.out + ran.err
    assert "real-secret-value" in terok("vault", "show", "work", "mistral", "--reveal").out


def test_remove(terok: Operator) -> None:
    terok.add()
    assert terok("vault", "remove", "work", "mistral").code == Exit.OK
    assert terok("vault", "remove", "work", "mistral").code == Exit.NOT_FOUND
    assert terok("vault", "list", "--json").json() == []


def test_a_custom_upstream(terok: Operator) -> None:
    url = "http://127.0.0.1:11434/v1"
    assert terok.add("work", "custom", "x", "--upstream", url, "--allow-private", "--header", "X-Key").code == Exit.OK
    meta = terok("vault", "show", "work", "custom", "--json").json()
    assert (meta["upstream"], meta["allow_private"], meta["auth_header"]) == (url, True, "X-Key")


def test_status_before_and_after(terok: Operator) -> None:
    none = terok("vault", "status", "--json").json()
    assert (none["exists"], none["unlocked"]) == (False, False)
    terok.add("work", "mistral", "x", "--expires", "2020-01-01")
    found = terok("vault", "status", "--json").json()
    assert (found["exists"], found["unlocked"], found["tiers"]) == (True, True, ["key-file", "recovery"])
    assert found["strength"].startswith("weak")
    assert "it ended on 2020-01-01 (fix: terok vault rotate work mistral)" in found["attention"][0]


def test_a_locked_vault_says_how_to_unlock_it(terok: Operator) -> None:
    terok.add()
    os.unlink(terok.layout.vault_key)
    ran = terok.add("work", "openai")
    assert ran.code == Exit.LOCKED
    assert "terok vault unlock" in ran.err
    assert terok("vault", "list").code == Exit.OK


def test_routes_are_written_and_a_bad_roster_is_refused(terok: Operator) -> None:
    assert terok("vault", "routes").code == Exit.OK
    before = Path(terok.layout.vault_routes).read_bytes()
    bad = Path(terok.layout.roster) / "bad.yml"
    bad.parent.mkdir()
    bad.write_text("providers:\n  mine: {titel: x}\n")
    for words in (["routes"], ["routes", "--check"]):
        ran = terok("vault", *words)
        assert ran.code == Exit.USAGE
        assert f"{bad}:2: providers.mine.titel" in ran.err
    assert Path(terok.layout.vault_routes).read_bytes() == before
    assert "titel" in terok("vault", "status", "--json").json()["attention"][0]


class Upstream:
    """A provider's stand-in: takes one key, over TLS."""

    def __init__(self, directory: Path) -> None:
        authority = Authority(directory / "ca.pem", "127.0.0.1")
        self.ca_file = authority.file
        self.seen: list[tuple[str, str]] = []
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                upstream.seen.append((self.path, self.headers["Authorization"]))
                self.send_response(200 if self.headers["Authorization"] == "Bearer good" else 401)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = False
        self.http.socket = authority.context.wrap_socket(self.http.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.http.server_address[1]}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,))
        self.thread.start()


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    running = Upstream(tmp_path)
    yield running
    running.http.shutdown()
    running.thread.join()
    running.http.server_close()


def test_check_makes_one_request(terok: Operator, upstream: Upstream) -> None:
    options = ("--upstream", upstream.url, "--allow-private", "--ca-bundle", upstream.ca_file)
    terok.add("work", "custom", "good", *options)
    ran = terok("vault", "check", "work", "custom", "--path", "/v1/models", "--json")
    assert (ran.code, ran.json()["accepted"]) == (Exit.OK, True)
    assert upstream.seen == [("/v1/models", "Bearer good")]
    terok("vault", "rotate", "work", "custom", stdin="bad")
    ran = terok("vault", "check", "work", "custom")
    assert ran.code == Exit.FAILURE
    assert "refused the credential" in ran.out
    assert terok("vault", "check", "work", "mistral").code == Exit.NOT_FOUND


def test_usage_and_limits(terok: Operator) -> None:
    assert terok("vault", "usage").code == Exit.OK
    ledger = Ledger(terok.layout.vault_usage)
    ledger.add({("work", "box", "openai", 10): [3, 10, 2048, 5, 6, 0]})
    ledger.close()
    found = terok("vault", "usage", "--json").json()
    assert found["usage"][0]["requests"] == 3
    assert "2.0 KiB" in terok("vault", "usage").out
    assert terok("vault", "limit", "work", "--tokens", "1000", "--period", "hour").out == "work: 1000 tokens a hour\n"
    assert terok("vault", "usage", "--json").json()["limits"][0]["tokens"] == 1000
    assert "no limit" in terok("vault", "limit", "work").out
    assert terok("vault", "limit", "work", "--tokens", "-1").code == Exit.USAGE


def test_audit_shows_and_verifies(terok: Operator) -> None:

    assert terok("vault", "audit").code == Exit.OK
    os.makedirs(terok.layout.vault, mode=0o700)
    writer = Journal(terok.layout.vault_audit)
    for number in range(3):
        line = {"time": "now", "container": f"box{number}", "scope": "work", "path": f"/{number}", "status": 200}
        writer.append([json.dumps(line).encode()[:-1]])
    assert [each["path"] for each in terok("vault", "audit", "-n", "2", "--json").json()] == ["/1", "/2"]
    assert len(terok("vault", "audit", "--container", "box1", "--json").json()) == 1
    assert terok("vault", "audit", "--verify").code == Exit.OK
    path = Path(terok.layout.vault_audit)
    path.write_bytes(path.read_bytes().replace(b"/1", b"/9"))
    ran = terok("vault", "audit", "--verify")
    assert ran.code == Exit.FAILURE
    assert "was changed" in ran.err


def on_a_terminal(terok: Operator, words: list[str], answers: dict[str, str]) -> tuple[int, str]:
    """Run the program on a pseudo-terminal and type an answer at each prompt; returns code and everything shown."""
    ours, theirs = pty.openpty()
    program = Path(sys.executable).with_name("terok")
    running = subprocess.Popen(
        [str(program), *words], stdin=theirs, stdout=theirs, stderr=theirs, env=terok.environ, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    shown, waiting = "", dict(answers)
    while select.select([ours], [], [], 30)[0]:
        try:
            data = os.read(ours, 4096)
        except OSError:
            break
        if not data:
            break
        shown += data.decode(errors="replace")
        for prompt in [each for each in waiting if each in shown]:
            os.write(ours, waiting.pop(prompt).encode() + b"\n")
    os.close(ours)
    return running.wait(30), shown


def test_a_terminal_is_asked_without_echo(terok: Operator) -> None:
    words = ["auth", "codex", "--scope", "work"]
    code, shown = on_a_terminal(terok, words, {"Key for OpenAI API: ": "sk-typed-by-hand"})
    assert code == Exit.OK, shown
    assert "sk-typed-by-hand" not in shown
    assert "https://platform.openai.com/api-keys" in shown
    assert stored(terok, "work", "openai")[0] == b"sk-typed-by-hand"
    answers = {"New passphrase of the vault: ": PASSPHRASE, "New passphrase of the vault, once more: ": "different one"}
    code, shown = on_a_terminal(terok, ["vault", "passphrase", "set"], answers)
    assert code == Exit.USAGE
    assert "the two entries differ" in shown
    assert PASSPHRASE not in shown


def test_no_secret_is_accepted_on_the_command_line(terok: Operator) -> None:
    for words in (["vault", "add", "work", "mistral", "sk-secret"], ["auth", "codex", "--scope", "w", "--key", "x"]):
        assert terok(*words).code == Exit.USAGE


def test_credential_repr_shows_nothing() -> None:
    assert "hush" not in repr(Credential("oauth", "hush", refresh_token="hush-hush"))
