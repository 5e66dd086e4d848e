"""`terok vault` and `terok auth` as an operator uses them: secrets come in by stdin and never out unasked."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme

from terok_host.runtime import cli
from terok_host.sidecars.store import keys, tiers
from terok_host.sidecars.store.credential import Credential
from terok_host.sidecars.store.store import Store
from terok_host.sidecars.vault.ledger import Ledger
from terok_host.supervisor.errors import Exit
from terok_host.supervisor.layout import Layout


class Ran(NamedTuple):
    """How a command line ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


class Operator:
    """Somebody with a home directory of their own who types commands."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self._capsys, self._monkeypatch = home, capsys, monkeypatch
        self.layout = Layout(str(home / "data"), str(home / "run"), str(home / "config" / "terok"))
        config = home / "config" / "terok" / "config.yml"
        config.parent.mkdir(parents=True)
        config.write_text(f"paths: {{data: {self.layout.data}, runtime: {self.layout.runtime}}}\n")
        monkeypatch.setattr(tiers, "SCRYPT", {"n": 1 << 10, "r": 8, "p": 1})
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_RUNTIME_DIR": str(home / "run"),
        }
        for name in list(os.environ):
            monkeypatch.delenv(name)
        for name, value in self.environ.items():
            monkeypatch.setenv(name, value)

    def __call__(self, *words: str, stdin: str = "") -> Ran:
        with self._monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            try:
                code = cli.run(words)
            except SystemExit as end:
                code = int(end.code or 0)
        out, err = self._capsys.readouterr()
        return Ran(code, out, err)

    def add(self, scope: str = "work", provider: str = "mistral", secret: str = "real-secret-value", *more: str) -> Ran:
        return self("vault", "add", scope, provider, *more, stdin=secret + "\n")

    def store(self) -> Store:
        store = Store.open(self.layout.vault_db)
        keys.ensure_unlocked(store, keys.key_files(self.layout))
        return store


@pytest.fixture
def terok(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Operator:
    return Operator(tmp_path, capsys, monkeypatch)


def recovery_key(ran: Ran) -> str:
    return next(line.strip() for line in ran.err.splitlines() if line.count("-") == 8)


def test_the_first_add_makes_the_vault_and_shows_the_recovery_key_once(terok: Operator) -> None:
    first = terok.add()
    assert first.code == Exit.OK
    assert "recovery key" in first.err
    assert "real-secret-value" not in first.out + first.err
    second = terok.add("work", "openai")
    assert "recovery key" not in second.err
    listed = terok("vault", "list", "--json").json()
    assert [(each["scope"], each["provider"], each["auth"]) for each in listed] == [
        ("work", "mistral", "api-key"),
        ("work", "openai", "api-key"),
    ]
    with terok.store() as store:
        item = store.get("credential", "work", "mistral")
        assert item is not None
        assert item.secret == b"real-secret-value"


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


@pytest.mark.parametrize(("words", "stdin", "problem"), [
    (["work", "nothing"], "x", "no provider"),
    (["../work", "mistral"], "x", "not a usable name"),
    (["work", "mistral"], "", "nothing was given"),
    (["work", "mistral"], "two words", "no header can carry it"),
    (["work", "mistral"], "caf\u00e9", "no header can carry it"),
    (["work", "mistral", "--auth", "oauth"], "x", "takes api-key"),
    (["work", "anthropic", "--auth", "oauth"], "no json", "A login is JSON"),
    (["work", "custom"], "x", "no upstream of its own"),
    (["work", "custom", "--upstream", "http://llm.example.com"], "x", "in the clear"),
    (["work", "custom", "--upstream", "https://u:p@llm.example.com"], "x", "without user"),
    (["work", "custom", "--upstream", "https://a.example.com", "--ca-bundle", "/etc/hosts"], "x", "no CA bundle"),
    (["work", "custom", "--upstream", "https://a.example.com", "--header", "A: b"], "x", "not a header's name"),
    (["work", "gitlab", "--set", "hots=x"], "x", "has these values: host"),
    (["work", "gitlab", "--set", "host=a b"], "x", "not usable in a route"),
    (["work", "mistral", "--expires", "tomorrow"], "x", "not a date"),
    (["work", "pypi", "--user", "a:b"], "x", "no colon"),
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
    assert "it ended on 2020-01-01: terok vault rotate work mistral" in found["attention"][0]


def test_a_locked_vault_says_how_to_unlock_it(terok: Operator) -> None:
    terok.add()
    os.unlink(terok.layout.vault_key)
    ran = terok.add("work", "openai")
    assert ran.code == Exit.LOCKED
    assert "terok vault unlock" in ran.err
    assert terok("vault", "list").code == Exit.OK


PASSPHRASE = "correct horse battery"


def test_passphrase_replaces_the_key_file_and_running_vaults_do_not_notice(terok: Operator) -> None:
    terok.add()
    with Store.open(terok.layout.vault_db, read_only=True) as sidecar:
        paths = keys.key_files(terok.layout)
        keys.ensure_unlocked(sidecar, paths)
        assert terok("vault", "passphrase", "set", stdin=PASSPHRASE).code == Exit.OK
        assert not Path(terok.layout.vault_key).exists()
        keys.ensure_unlocked(sidecar, paths)
        changed = terok("vault", "passphrase", "change", stdin=f"{PASSPHRASE}\nanother passphrase\n")
        assert changed.code == Exit.OK
        keys.ensure_unlocked(sidecar, paths)
        item = sidecar.get("credential", "work", "mistral")
        assert item is not None
        assert item.version == 1
        locked = terok("vault", "lock")
        assert locked.code == Exit.OK
        assert not Path(terok.layout.unlocked_key).exists()
        with pytest.raises(keys.LockedError):
            keys.ensure_unlocked(sidecar, paths)
        assert terok("vault", "unlock", stdin=PASSPHRASE).code == Exit.LOCKED
        with pytest.raises(keys.LockedError):
            keys.ensure_unlocked(sidecar, paths)
        assert terok("vault", "unlock", stdin="another passphrase").code == Exit.OK
        keys.ensure_unlocked(sidecar, paths)
        assert Path(terok.layout.unlocked_key).stat().st_mode & 0o777 == 0o600


def test_a_guess_costs_memory_and_a_vault_cannot_ask_for_too_much() -> None:
    assert 128 * tiers.SCRYPT["n"] * tiers.SCRYPT["r"] >= 128 << 20
    with pytest.raises(keys.LockedError, match="more memory"):
        tiers.stretch("x", {"salt": "00", "n": 1 << 24, "r": 8, "p": 1})


def test_lock_with_a_key_file_is_honest(terok: Operator) -> None:
    terok.add()
    ran = terok("vault", "lock")
    assert ran.code == Exit.MANUAL
    assert "passphrase set" in ran.err


def test_recovery_restores_a_vault_whose_passphrase_is_lost(terok: Operator) -> None:
    key = recovery_key(terok.add())
    terok("vault", "passphrase", "set", stdin=PASSPHRASE)
    terok("vault", "lock")
    assert terok("vault", "unlock", "--recovery", stdin=key.lower()).code == Exit.OK
    terok("vault", "passphrase", "add", "key-file")
    assert terok("vault", "passphrase", "remove", "passphrase").code == Exit.OK
    assert terok("vault", "passphrase", "set", stdin="a new passphrase").code == Exit.OK
    new = terok("vault", "passphrase", "recovery").out.strip()
    assert new != key
    terok("vault", "lock")
    assert terok("vault", "unlock", "--recovery", stdin=key).code == Exit.LOCKED
    assert terok("vault", "unlock", "--recovery", stdin=new).code == Exit.OK
    assert terok("vault", "unlock", "--recovery", stdin="AAAA-BBBB").code == Exit.USAGE


def test_short_passphrases_and_the_last_tier_are_refused(terok: Operator) -> None:
    terok.add()
    assert terok("vault", "passphrase", "set", stdin="short").code == Exit.USAGE
    refused = terok("vault", "passphrase", "remove", "key-file")
    assert refused.code == Exit.REFUSED
    assert terok("vault", "passphrase", "remove", "keyring").code == Exit.NOT_FOUND


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_passphrase_command_unlocks_and_fails_closed(terok: Operator, tmp_path: Path) -> None:
    terok.add()
    command = program(tmp_path / "ask", 'echo "from $1"; echo second line; cat /dev/null')
    assert terok("vault", "passphrase", "command", command, "the-store").code == Exit.OK
    terok("vault", "lock")
    assert terok("vault", "unlock").code == Exit.OK
    terok("vault", "lock")
    for text in ("exit 3", "echo another", "true", "echo secret-of-the-store >&2; exit 1"):
        program(tmp_path / "ask", text)
        ran = terok("vault", "unlock")
        assert ran.code == Exit.LOCKED
        assert "secret-of-the-store" not in ran.err
        assert not Path(terok.layout.unlocked_key).exists()


def test_a_command_that_hangs_is_killed(terok: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terok.add()
    monkeypatch.setattr(tiers, "COMMAND_SECONDS", 0.3)
    ran = terok("vault", "passphrase", "command", program(tmp_path / "hang", "exec sleep 600"))
    assert ran.code == Exit.LOCKED
    assert "did not end within" in ran.err
    assert terok("vault", "passphrase", "list", "--json").json()["tiers"] == ["key-file", "recovery"]


def test_systemd_creds_opens_the_vault_where_it_exists_and_is_refused_elsewhere(terok: Operator) -> None:
    terok.add()
    ran = terok("vault", "passphrase", "add", "systemd-creds")
    if ran.code == Exit.OK:
        terok("vault", "lock")
        assert terok("vault", "unlock", "--json").json()["tier"] == "systemd-creds"
        return
    # too old for users, not there at all, or there without a key of the host
    assert ran.code in (Exit.REFUSED, Exit.LOCKED)
    assert "systemd-creds" in ran.err
    assert terok("vault", "unlock", "--tier", "systemd-creds").code == Exit.LOCKED
    assert terok("vault", "passphrase", "list", "--json").json()["tiers"] == ["key-file", "recovery"]


@pytest.fixture
def keyring(terok: Operator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A keyring that keeps its passwords in a file; it is chosen as an operator would choose one."""
    root = str(Path(__file__).parents[2])
    monkeypatch.syspath_prepend(root)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "tests.standins.keyrings.FileKeyring")
    monkeypatch.setenv("TEST_KEYRING_FILE", str(tmp_path / "keyring.json"))
    return tmp_path / "keyring.json"


def test_the_keyring_opens_the_vault_and_forgets_its_key(terok: Operator, keyring: Path) -> None:
    terok.add()
    assert terok("vault", "passphrase", "add", "keyring").code == Exit.OK
    assert terok("vault", "lock").code == Exit.OK
    assert terok("vault", "unlock", "--json").json()["tier"] == "keyring"
    assert terok("vault", "passphrase", "set", stdin=PASSPHRASE).code == Exit.OK
    assert terok("vault", "passphrase", "remove", "keyring").code == Exit.OK
    assert json.loads(keyring.read_text()) == {}


def test_a_keyring_that_hangs_or_refuses_fails_closed_in_time(
    terok: Operator, keyring: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terok.add()
    terok("vault", "passphrase", "add", "keyring")
    terok("vault", "lock")
    monkeypatch.setattr(tiers, "KEYRING_SECONDS", 0.5)
    for backend, problem in (("HangingKeyring", "did not answer within"), ("ClosedKeyring", "is closed")):
        monkeypatch.setenv("PYTHON_KEYRING_BACKEND", f"tests.standins.keyrings.{backend}")
        ran = terok("vault", "unlock")
        assert ran.code == Exit.LOCKED
        assert problem in ran.err
        assert not Path(terok.layout.unlocked_key).exists()


def test_export_is_sealed_and_import_brings_it_back(terok: Operator, tmp_path: Path) -> None:
    terok.add()
    terok.add("play", "openai", "other-secret-value")
    sealed, clear = tmp_path / "sealed.json", tmp_path / "clear.json"
    assert terok("vault", "export", str(sealed), stdin=PASSPHRASE).code == Exit.OK
    assert sealed.stat().st_mode & 0o777 == 0o600
    assert "mistral" not in sealed.read_text()
    assert terok("vault", "export", str(sealed), stdin=PASSPHRASE).code == Exit.FAILURE
    assert terok("vault", "export", str(clear), "--reveal", "--scope", "play").code == Exit.OK
    assert "openai" in clear.read_text()
    for provider, scope in (("mistral", "work"), ("openai", "play")):
        terok("vault", "remove", scope, provider)
    assert terok("vault", "import", str(sealed), stdin="wrong passphrase").code == Exit.REFUSED
    assert (
        terok(
            "vault",
            "import",
            str(sealed),
            stdin=PASSPHRASE,
        ).code
        == Exit.OK
    )
    with terok.store() as store:
        item = store.get("credential", "work", "mistral")
        assert item is not None
        assert item.secret == b"real-secret-value"
    kept = terok("vault", "import", str(clear))
    assert "1 were there already" in kept.err


def test_import_refuses_what_is_no_export(terok: Operator, tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    item = '{"kind": "credential", "scope": "../x", "name": "y", "secret": "", "meta": {}}'
    for text in (
        "",
        "{}",
        "[]",
        '{"terok_export": 2}',
        '{"terok_export": 1}',
        f'{{"terok_export": 1, "items": [{item}]}}',
    ):
        bad.write_text(text)
        assert terok("vault", "import", str(bad), stdin="x").code == Exit.USAGE, text
    assert not Path(terok.layout.vault_db).exists()


CLAUDE = {
    "claudeAiOauth": {
        "accessToken": "sk-ant-oat01-real", "refreshToken": "sk-ant-ort01-real", "expiresAt": 1900000000123,
        "scopes": ["user:inference"], "subscriptionType": "max",
    }
}  # fmt: skip


def vendor_file(home: Path, path: str, text: str) -> Path:
    file = home / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def stored(terok: Operator, scope: str, provider: str) -> tuple[bytes, dict[str, Any]]:
    with terok.store() as store:
        item = store.get("credential", scope, provider)
        assert item is not None
        return item.secret, item.meta


def test_auth_imports_claudes_login(terok: Operator) -> None:
    vendor_file(terok.home, ".claude/.credentials.json", json.dumps(CLAUDE))
    ran = terok("auth", "claude", "--scope", "work", "--import")
    assert ran.code == Exit.OK, ran.err
    assert "real" not in ran.out
    secret, meta = stored(terok, "work", "anthropic")
    assert json.loads(secret)["refresh_token"] == "sk-ant-ort01-real"
    assert (meta["auth"], meta["expires_at"], meta["variables"]) == ("oauth", 1900000000.123, {"subscription": "max"})


@pytest.mark.parametrize(("agent", "path", "text", "provider", "secret"), [
    ("gh", ".config/gh/hosts.yml", "github.com:\n    oauth_token: gho_real\n    user: me\n", "github", b"gho_real"),
    ("glab", ".config/glab-cli/config.yml", "hosts:\n  git.example.com:\n    token: real\n", "gitlab", b"real"),
    ("vibe", ".vibe/.env", "# mine\nexport MISTRAL_API_KEY='real'\n", "mistral", b"real"),
    ("npm", ".npmrc", "//registry.npmjs.org/:_authToken=npm_real\n", "npm", b"npm_real"),
    ("twine", ".pypirc", "[pypi]\nusername = __token__\npassword = pypi-re%al\n", "pypi", b"pypi-re%al"),
    ("hf", ".cache/huggingface/token", "hf_real\n", "huggingface", b"hf_real"),
    ("wandb", ".netrc", "machine api.wandb.ai\n  login user\n  password real\n", "wandb", b"real"),
    ("codex", ".codex/auth.json", '{"OPENAI_API_KEY": "sk-real", "tokens": null}', "openai", b"sk-real"),
])  # fmt: skip
def test_auth_imports_the_files_of_other_agents(
    terok: Operator, agent: str, path: str, text: str, provider: str, secret: bytes
) -> None:
    file = vendor_file(terok.home, path, text)
    ran = terok("vault", "import", str(file), "--agent", agent, "--scope", "work")
    assert ran.code == Exit.OK, ran.err
    assert stored(terok, "work", provider)[0] == secret


@pytest.mark.parametrize(
    "text", ["", "no json", "[]", "{}", '{"claudeAiOauth": {"accessToken": ""}}', '{"claudeAiOauth": 1}']
)
def test_a_vendor_file_without_credential_is_refused_without_showing_it(terok: Operator, text: str) -> None:
    vendor_file(terok.home, ".claude/.credentials.json", text)
    ran = terok("auth", "claude", "--scope", "work", "--import")
    assert ran.code in (Exit.NOT_FOUND, Exit.FAILURE)
    assert not Path(terok.layout.vault_db).exists()


def test_auth_asks_for_a_key(terok: Operator) -> None:
    assert terok("auth", "codex", "--scope", "work", stdin="sk-typed\n").code == Exit.OK
    assert stored(terok, "work", "openai")[0] == b"sk-typed"
    assert terok("auth", "nothing", "--scope", "work", stdin="x").code == Exit.NOT_FOUND
    assert terok("auth", "opencode", "--scope", "work", "--provider", "custom", stdin="x").code == Exit.USAGE
    assert terok("auth", "sonar", "--scope", "work", "--import").code == Exit.REFUSED


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
        authority = trustme.CA()
        self.ca_file = str(directory / "ca.pem")
        authority.cert_pem.write_to_path(self.ca_file)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
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
        self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
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


def test_clean_finds_real_credentials_and_not_phantoms(terok: Operator, tmp_path: Path) -> None:
    terok.add("work", "mistral", "real-secret/value+1")
    with terok.store() as store:
        store.add_token("phantom-token-of-the-container", container="box", scope="work", provider="anthropic")
    mount = tmp_path / "mount"
    vendor_file(mount, "home/.claude/.credentials.json", json.dumps(CLAUDE))
    vendor_file(mount, "other/.vibe/.env", "MISTRAL_API_KEY=phantom-token-of-the-container\n")
    vendor_file(mount, "other/.git-credentials", "http://x:phantom-token-of-the-container@127.0.0.1\n")
    vendor_file(mount, "deep/er/notes.txt", "x" * (1 << 20) + "\nthe key is real-secret/value+1\n")
    import base64

    for offset in range(3):
        text = base64.b64encode(b"x" * offset + b"real-secret/value+1" + b"tail").decode()
        vendor_file(mount, f"encoded/{offset}", f"Basic {text}\n")
    vendor_file(mount, "innocent", "nothing here, and real-secret is not enough")
    os.symlink("/etc/passwd", mount / "link")
    ran = terok("vault", "clean", str(mount), "--json")
    assert ran.code == Exit.MANUAL
    assert "real-secret" not in ran.out
    found = {os.path.relpath(each["path"], mount): each for each in ran.json()["found"]}
    assert set(found) == {
        "home/.claude/.credentials.json", "deep/er/notes.txt", "encoded/0", "encoded/1", "encoded/2",
    }  # fmt: skip
    assert found["deep/er/notes.txt"]["secrets"] == ["work/mistral (raw)"]
    assert found["encoded/1"]["secrets"] == ["work/mistral (base64)"]
    taken = terok("vault", "clean", str(mount), "--import", "work", "--json")
    assert [each["imported"] for each in taken.json()["found"] if each["imported"]] == [["work/anthropic"]]
    assert stored(terok, "work", "anthropic")[1]["auth"] == "oauth"
    assert (mount / "home/.claude/.credentials.json").exists()
    gone = terok("vault", "clean", str(mount), "--yes")
    assert gone.code == Exit.OK
    assert not (mount / "home/.claude/.credentials.json").exists()
    assert not (mount / "deep/er/notes.txt").exists()
    assert (mount / "other/.vibe/.env").exists()
    assert terok("vault", "clean", str(mount)).code == Exit.OK


def test_clean_does_not_delete_what_was_swapped(tmp_path: Path) -> None:
    from terok_host.runtime import leaks

    vendor_file(tmp_path, "mount/a/secret", "real-secret-value")
    vendor_file(tmp_path, "elsewhere/secret", "precious")
    (found,) = leaks.Scan({}, {"work/x": [b"real-secret-value"]}).walk(str(tmp_path / "mount"))
    (tmp_path / "mount/a").rename(tmp_path / "mount/b")
    (tmp_path / "mount/a").symlink_to(tmp_path / "elsewhere")
    assert not leaks.delete(found)
    assert (tmp_path / "elsewhere/secret").exists()


def test_clean_without_mounts_and_with_a_locked_vault(terok: Operator, tmp_path: Path) -> None:
    assert terok("vault", "clean").code == Exit.OK
    terok.add()
    os.unlink(terok.layout.vault_key)
    ran = terok("vault", "clean", str(tmp_path))
    assert "Only file names are looked at" in ran.err
    assert terok("vault", "clean", str(tmp_path / "missing")).code == Exit.USAGE


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
    from terok_host.sidecars.vault.journal import Journal

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
    assert "not as it was written" in ran.err


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
