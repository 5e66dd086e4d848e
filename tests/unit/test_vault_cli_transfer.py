"""Credentials on their way: exports, vendors' own files, `terok auth`, and leaks that `clean` finds."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from terok_host.runtime.vault import leaks
from terok_host.supervisor.ground.errors import Exit
from tests.standins.operator import PASSPHRASE, Operator, stored, vendor_file


@pytest.fixture
def terok(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Operator:
    return Operator(tmp_path, capsys, monkeypatch)


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
    assert "1 exist" in kept.err


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


GOOD: dict[str, Any] = {"kind": "credential", "scope": "work", "name": "y", "secret": "eA==", "meta": {"auth": "oauth"}}


@pytest.mark.parametrize("items", [
    5, "x", {"a": 1}, [5], ["x"], [None], [[]], [{}],
    [{**GOOD, "kind": "other"}], [{**GOOD, "kind": []}], [{**GOOD, "scope": None}], [{**GOOD, "scope": 0}],
    [{**GOOD, "name": 5}], [{**GOOD, "name": None}], [{**GOOD, "secret": 5}], [{**GOOD, "secret": "?"}],
    [{**GOOD, "meta": []}], [{**GOOD, "meta": {"auth": 5}}], [{**GOOD, "meta": {"auth": "x"}}],
    [{**GOOD, "kind": "ssh-key", "scope": "", "meta": {"scopes": 5}}],
    [{**GOOD, "kind": "ssh-key", "scope": "", "meta": {"scopes": [5]}}],
    [GOOD], [{**GOOD, "secret": base64.b64encode(b'{"access_token": null}').decode()}],
    [{**GOOD, "secret": base64.b64encode(b'{"access_token": "a", "expires_at": "x"}').decode()}],
    [{**GOOD, "secret": base64.b64encode(b"\xff").decode(), "meta": {}}],
], ids=repr)  # fmt: skip
def test_import_of_a_changed_export_is_a_sentence(terok: Operator, tmp_path: Path, items: Any) -> None:
    export = tmp_path / "export.json"
    export.write_text(json.dumps({"terok_export": 1, "items": items}))
    ran = terok("vault", "import", str(export))
    assert ran.code in (Exit.USAGE, Exit.FAILURE) and ran.err.startswith("terok: "), ran
    assert not Path(terok.layout.vault_db).exists()


@pytest.mark.parametrize("change", [
    {"sealed": 5}, {"sealed": "?"}, {"sealed": ""}, {"sealed": "AQ=="}, {"scrypt": 5}, {"scrypt": None}, {"scrypt": {}},
    {"scrypt": {"salt": "00", "n": 3, "r": 8, "p": 1}}, {"scrypt": {"salt": "00", "n": 1 << 40, "r": 8, "p": 1}},
    {"terok_export": {}}, {"terok_export": None},
], ids=repr)  # fmt: skip
def test_import_of_a_changed_sealed_export_is_a_sentence(terok: Operator, tmp_path: Path, change: Any) -> None:
    export = tmp_path / "export.json"
    scrypt = {"salt": "00", "n": 2, "r": 1, "p": 1}
    export.write_text(json.dumps({"terok_export": 1, "scrypt": scrypt, "sealed": "AAAA", **change}))
    ran = terok("vault", "import", str(export), stdin=PASSPHRASE)
    assert ran.code in (Exit.USAGE, Exit.REFUSED) and ran.err.startswith("terok: "), ran


def test_an_export_that_nests_without_end_is_a_sentence(terok: Operator, tmp_path: Path) -> None:
    export = tmp_path / "export.json"
    export.write_text('{"terok_export": ' + "[" * 100_000)
    assert terok("vault", "import", str(export)).code == Exit.USAGE


CLAUDE = {
    "claudeAiOauth": {
        "accessToken": "sk-ant-oat01-real", "refreshToken": "sk-ant-ort01-real", "expiresAt": 1900000000123,
        "scopes": ["user:inference"], "subscriptionType": "max",
    }
}  # fmt: skip


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


def test_clean_finds_real_credentials_and_not_phantoms(terok: Operator, tmp_path: Path) -> None:
    terok.add("work", "mistral", "real-secret/value+1")
    with terok.store() as store:
        store.add_token("phantom-token-of-the-container", container="box", scope="work", provider="anthropic")
    mount = tmp_path / "mount"
    vendor_file(mount, "home/.claude/.credentials.json", json.dumps(CLAUDE))
    vendor_file(mount, "other/.vibe/.env", "MISTRAL_API_KEY=phantom-token-of-the-container\n")
    vendor_file(mount, "other/.git-credentials", "http://x:phantom-token-of-the-container@127.0.0.1\n")
    vendor_file(mount, "deep/er/notes.txt", "x" * (1 << 20) + "\nthe key is real-secret/value+1\n")

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


def test_clean_leaves_terok_s_own_files_alone(terok: Operator, tmp_path: Path) -> None:
    """A state bundle holds files that are mounted as an agent's login, with phantom tokens or revoked ones."""
    terok.add()
    own = [
        vendor_file(Path(terok.layout.data), "containers/box/home/.claude/.credentials.json", json.dumps(CLAUDE)),
        vendor_file(Path(terok.layout.runtime), "box/home/.claude/.credentials.json", json.dumps(CLAUDE)),
    ]
    leaked = vendor_file(tmp_path, "project/.claude/.credentials.json", json.dumps(CLAUDE))
    assert terok("vault", "clean", str(tmp_path), "--yes").code == Exit.OK
    assert all(path.exists() for path in own) and not leaked.exists()
    for inside in (Path(terok.layout.data), own[0].parent, own[1].parent.parent):
        refused = terok("vault", "clean", str(inside), "--yes")
        assert refused.code == Exit.REFUSED and "belongs to terok" in refused.err
    (tmp_path / "link").symlink_to(own[0].parent)
    assert terok("vault", "clean", str(tmp_path / "link"), "--yes").code == Exit.REFUSED
    assert all(path.exists() for path in own)


def test_clean_does_not_delete_what_was_swapped(tmp_path: Path) -> None:

    vendor_file(tmp_path, "mount/a/secret", "real-secret-value")
    vendor_file(tmp_path, "elsewhere/secret", "precious")
    (found,) = leaks.Scan({}, {"work/x": [b"real-secret-value"]}).walk(str(tmp_path / "mount"))
    (tmp_path / "mount/a").rename(tmp_path / "mount/b")
    (tmp_path / "mount/a").symlink_to(tmp_path / "elsewhere")
    assert not leaks.delete(found)
    assert (tmp_path / "elsewhere/secret").exists()


def test_clean_does_not_delete_another_file_of_the_same_name(tmp_path: Path) -> None:
    file = vendor_file(tmp_path, "secret", "real-secret-value")
    (found,) = leaks.Scan({}, {"work/x": [b"real-secret-value"]}).walk(str(tmp_path))
    file.rename(tmp_path / "moved")
    file.write_text("precious")
    assert not leaks.delete(found)
    assert file.read_text() == "precious"


def test_clean_follows_no_link_even_to_the_same_file(tmp_path: Path) -> None:
    file = vendor_file(tmp_path, "mount/a/secret", "real-secret-value")
    (tmp_path / "elsewhere").mkdir()
    os.link(file, tmp_path / "elsewhere/secret")
    (found,) = leaks.Scan({}, {"work/x": [b"real-secret-value"]}).walk(str(tmp_path / "mount"))
    (tmp_path / "mount/a").rename(tmp_path / "mount/b")
    (tmp_path / "mount/a").symlink_to(tmp_path / "elsewhere")
    assert not leaks.delete(found)
    assert (tmp_path / "elsewhere/secret").exists()


def test_clean_sees_a_secret_across_the_border_of_two_reads(tmp_path: Path) -> None:
    vendor_file(tmp_path, "large", "x" * (leaks.CHUNK - 5) + "real-secret-value" + "x" * 99)
    assert len(list(leaks.Scan({}, {"work/x": [b"real-secret-value"]}).walk(str(tmp_path)))) == 1


def test_clean_without_mounts_and_with_a_locked_vault(terok: Operator, tmp_path: Path) -> None:
    assert terok("vault", "clean").code == Exit.OK
    terok.add()
    os.unlink(terok.layout.vault_key)
    ran = terok("vault", "clean", str(tmp_path))
    assert "Only file names are checked" in ran.err
    assert terok("vault", "clean", str(tmp_path / "missing")).code == Exit.USAGE
