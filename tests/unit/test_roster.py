"""The roster: what is bundled compiles, what is wrong is refused with file, line and key."""

from __future__ import annotations

import base64
import json
import re
import tomllib
from pathlib import Path

import pytest

from terok_host.sidecars.roster import agents, brokered, catalog, compile, files
from terok_host.sidecars.roster.model import Catalog
from terok_host.sidecars.roster.nodes import RosterError
from terok_host.sidecars.store import tokens
from terok_host.sidecars.vault.routes import Route
from terok_host.supervisor.ground.errors import TerokError
from terok_host.supervisor.ground.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path / "data"), str(tmp_path / "run"), str(tmp_path / "config"))


@pytest.fixture(scope="module")
def bundled() -> Catalog:
    return compile.compile_files(sorted(str(path) for path in Path(files.bundled()).glob("*.yml")))


def personal(layout: Layout, text: str, name: str = "mine.yml") -> Path:
    path = Path(layout.roster) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


PROVIDERS = "anthropic openai github gitlab mistral openrouter google custom huggingface pypi npm sonar wandb copilot"
AGENTS = "claude codex gh glab git copilot opencode pi vibe gemini twine npm hf sonar wandb"


def test_everything_promised_is_bundled(bundled: Catalog) -> None:
    assert set(PROVIDERS.split()) <= bundled.providers.keys()
    assert set(AGENTS.split()) <= bundled.agents.keys()


def every_kind(bundled: Catalog) -> list[tuple[str, str]]:
    return [(name, kind) for name, provider in bundled.providers.items() for kind in provider.auth]


def test_every_phantom_token_has_enough_randomness_and_is_new(bundled: Catalog) -> None:
    for name, kind in every_kind(bundled):
        provider = bundled.providers[name]
        assert tokens.template_bits(provider.auth[kind].token) >= tokens.RANDOM_BITS_MIN, (name, kind)
        made = {agents.phantom(provider, {"auth": kind}) for _ in range(3)}
        assert len(made) == 3
        assert all(re.fullmatch(r"[!-~]+", token) for token in made)


def test_every_agent_gets_only_filled_values(bundled: Catalog) -> None:
    for kind in ("api-key", "oauth", "basic"):
        held = {
            name: {"auth": kind if kind in provider.auth else next(iter(provider.auth))}
            for name, provider in bundled.providers.items()
        }
        minted = {name: agents.phantom(bundled.providers[name], meta) for name, meta in held.items()}
        assert agents.available(bundled, held) == list(bundled.agents)
        for name in bundled.agents:
            found = agents.wanted(bundled, name, tokens=minted, held=held, now=1_800_000_000)
            assert found is not None
            texts = [*found.env.values(), *(file.content for file in found.files), *(value for _, value in found.git)]
            assert not any("${" in text or "@number" in text for text in texts), name
            for file in found.files:
                assert not file.path.startswith(("/", "~", ".."))
                if file.path.endswith(".json"):
                    json.loads(file.content)


def test_an_agent_without_credential_or_token_wants_nothing(bundled: Catalog) -> None:
    assert agents.wanted(bundled, "claude", tokens={}, held={"anthropic": {}}) is None
    assert agents.wanted(bundled, "claude", tokens={"anthropic": "t" * 30}, held={}) is None
    assert agents.available(bundled, {}) == []


def test_claude_with_a_login_gets_a_session_file_and_no_key(bundled: Catalog) -> None:
    found = agents.wanted(
        bundled, "claude", tokens={"anthropic": "phantom"}, held={"anthropic": {"auth": "oauth"}}, now=1_800_000_000
    )
    assert found is not None
    assert found.env["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:9419"
    assert found.env["IS_SANDBOX"] == "1" and "ANTHROPIC_API_KEY" not in found.env
    session = {file.path: file for file in found.files}[".claude/.credentials.json"]
    login = json.loads(session.content)["claudeAiOauth"]
    assert login["accessToken"] == "phantom"
    assert login["expiresAt"] > 1_800_000_000_000
    assert session.mode == 0o600


def test_git_reaches_every_host_that_has_a_credential(bundled: Catalog) -> None:
    found = agents.wanted(
        bundled,
        "git",
        tokens={"github": "hubtoken", "gitlab": "labtoken"},
        held={"github": {}, "gitlab": {"variables": {"host": "gitlab.example.com"}}},
    )
    assert found is not None
    pairs = dict(found.git)
    assert pairs["url.http://127.0.0.1:9419/gitlab.example.com/.insteadOf"] == "https://gitlab.example.com/"
    header = pairs["http.http://127.0.0.1:9419/github.com/.extraHeader"]
    assert base64.b64decode(header.split()[-1]) == b"x-access-token:hubtoken"
    env = agents.git_env(found.git)
    assert env["GIT_CONFIG_COUNT"] == "4"
    assert env["GIT_CONFIG_VALUE_0"] == "https://github.com/"


def test_a_jwt_phantom_has_the_claims_that_codex_reads(bundled: Catalog) -> None:
    token = agents.phantom(bundled.providers["openai"], {"auth": "oauth"})
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert "email" in claims
    assert claims["https://api.openai.com/auth"]["chatgpt_plan_type"]
    assert claims["exp"] > claims["iat"]


def test_codex_gets_the_accounts_real_number(bundled: Catalog) -> None:
    held = {"openai": {"auth": "oauth", "variables": {"account_id": "acc-1"}}}
    for meta, expected in ((held["openai"], "acc-1"), ({"auth": "oauth"}, "terok")):
        token = agents.phantom(bundled.providers["openai"], meta)
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        assert claims["https://api.openai.com/auth"]["chatgpt_account_id"] == expected
        found = agents.wanted(bundled, "codex", tokens={"openai": token}, held={"openai": meta})
        assert found is not None
        kept = {file.path: json.loads(file.content) for file in found.files if file.path.endswith(".json")}
        assert kept[".codex/auth.json"]["tokens"]["account_id"] == expected


def test_copilot_needs_no_github_with_another_provider(bundled: Catalog) -> None:
    found = agents.wanted(bundled, "copilot", tokens={"anthropic": "phantom"}, held={"anthropic": {}})
    assert found is not None
    assert found.env["COPILOT_PROVIDER_TYPE"] == "anthropic"
    assert found.env["COPILOT_PROVIDER_API_KEY"] == "phantom"
    assert "COPILOT_GITHUB_TOKEN" not in found.env


def test_copilot_reaches_the_host_of_each_plan(bundled: Catalog) -> None:
    hosts = brokered.of_scope(bundled, {"copilot": {}})
    plans = [f"api.{plan}githubcopilot.com:443" for plan in ("", "business.", "enterprise.", "individual.")]
    assert list(hosts) == sorted(["api.github.com:443", *plans])


def test_gh_sends_its_token_to_every_host_below_github(bundled: Catalog) -> None:
    hosts = {host.partition(":")[0] for host in brokered.of_scope(bundled, {"github": {}})}
    stored = {host for host in bundled.providers["github"].storage if host.endswith(".github.com")}
    assert stored <= hosts, "a phantom token would leave the machine"


def test_gitlabs_api_gets_no_basic_at_its_own_host(bundled: Catalog) -> None:
    meta = {"variables": {"host": "git.example.com"}}
    route = Route("gitlab", catalog.effective(bundled.providers["gitlab"], meta), "api-key")
    here = [target for target in route.targets if target.is_at("git.example.com", 443)]
    ways = {}
    for path in (b"/api/v4/user", b"/me/private.git/info/refs"):
        ways[path] = next(target.auth.header for target in here if target.behind(path) is not None)
    assert ways == {b"/api/v4/user": b"PRIVATE-TOKEN", b"/me/private.git/info/refs": b"Authorization"}


def test_codex_with_a_key_does_not_ask_chatgpt_for_models(bundled: Catalog) -> None:
    for tls in ((), ("openai",)):
        found = agents.wanted(bundled, "codex", tokens={"openai": "phantom"}, held={"openai": {}}, tls=tls)
        assert found is not None
        config = tomllib.loads(next(file.content for file in found.files if file.path.endswith("config.toml")))
        assert config["features"] == {"api_key_model_discovery": False}
        assert ("openai_base_url" in config) == (not tls)


def test_several_custom_credentials_have_one_provider_and_names_of_their_own(bundled: Catalog) -> None:
    custom = bundled.providers["custom"]
    assert bundled.provider("custom-llm") is bundled.provider("custom-other-2") is custom
    for name in ("custom-", "custom-A", "custom-a/b", "github-x", "nothing"):
        assert bundled.provider(name) is None
    env = agents.general_env(["custom-llm", "github"], {"custom-llm": "one", "github": "two"})
    assert env == {
        "TEROK_TOKEN_CUSTOM_LLM": "one",
        "TEROK_URL_CUSTOM_LLM": "http://127.0.0.1:9419",
        "TEROK_TOKEN_GITHUB": "two",
        "TEROK_URL_GITHUB": "http://127.0.0.1:9419",
    }


@pytest.mark.parametrize(
    ("secret", "owners"),
    [
        ("ghp_abc", {"github", "copilot"}),
        ("sk-ant-api03-x", {"anthropic"}),
        ("sk-or-v1-x", {"openrouter"}),
        ("sk-proj-x", {"openai"}),
        ("0123456789abcdef", set()),
    ],
)
def test_whose_a_secret_is_by_its_beginning(bundled: Catalog, secret: str, owners: set[str]) -> None:
    assert set(bundled.meant_for(secret)) == owners


def test_effective_fills_and_overrides(bundled: Catalog) -> None:
    gitlab = bundled.providers["gitlab"]
    route = catalog.effective(gitlab, {"variables": {"host": "git.example.com"}})
    assert [upstream.url for upstream in route.upstreams] == ["https://git.example.com"] * 3
    assert [upstream.prefix for upstream in route.upstreams] == ["/api/", "/git.example.com/", "/"]
    openai = bundled.providers["openai"]
    assert catalog.effective(openai, {}).auth["oauth"].headers == {}
    with_account = catalog.effective(openai, {"variables": {"account_id": "acc-1"}})
    assert with_account.auth["oauth"].headers == {"ChatGPT-Account-ID": "acc-1"}
    custom = bundled.providers["custom"]
    assert catalog.effective(custom, {}).upstreams == ()
    route = catalog.effective(
        custom, {"upstream": "https://llm.example.com/v2", "allow_private": True, "auth_header": "X-Key"}
    )
    assert route.upstreams[0].url == "https://llm.example.com/v2"
    key = route.auth["api-key"]
    assert (route.allow_private, key.header, key.prefix) == (True, "X-Key", "")
    for hostile in ("a b", "x\r\nEvil: 1", "host/../..", "-x"):
        with pytest.raises(TerokError):
            catalog.effective(gitlab, {"variables": {"host": hostile}})


def test_host_specific_and_longer_prefixes_come_first(bundled: Catalog) -> None:
    for provider in bundled.providers.values():
        order = [(upstream.host is None, -len(upstream.prefix)) for upstream in provider.upstreams]
        assert order == sorted(order)


MINE = """\
providers:
  mine:
    title: My service
    upstreams:
      - url: https://api.example.com
    auth:
      api-key: {header: X-Key}
"""


def test_a_personal_provider_is_taken_and_recompiled_when_changed(layout: Layout) -> None:
    first, warning = files.load(layout)
    assert "mine" not in first.providers
    personal(layout, MINE)
    second, warning = files.load(layout)
    assert (second.providers["mine"].title, warning) == ("My service", "")
    assert "x-key" in second.token_headers
    assert Path(layout.vault_routes).stat().st_mode & 0o777 == 0o600
    assert catalog.load(layout.vault_routes) == second


def test_a_bad_file_keeps_the_old_routes(layout: Layout) -> None:
    personal(layout, MINE)
    files.load(layout)
    before = Path(layout.vault_routes).read_bytes()
    path = personal(layout, MINE.replace("title", "titel"))
    with pytest.raises(RosterError, match=re.escape(f"{path}:3: providers.mine.titel: there is no such key")):
        files.write_routes(layout)
    catalogue, warning = files.load(layout)
    assert "mine" in catalogue.providers
    assert "titel" in warning
    assert Path(layout.vault_routes).read_bytes() == before


def test_extends_takes_over_and_overrides(layout: Layout) -> None:
    personal(
        layout, "providers:\n  quick:\n    extends: openai\n    limits: {per_minute: 10, concurrent: 2, body_mb: 1}\n"
    )
    found = files.write_routes(layout).providers
    assert found["quick"].upstreams == found["openai"].upstreams
    assert (found["quick"].per_minute, found["quick"].concurrent) == (10, 2)
    assert found["quick"].body_max == 1 << 20
    assert found["openai"].body_max is None


AGENT = "agents:\n  one:\n    title: One\n    providers: [openai]\n"

WRONG = [
    ("providers: ]", 1, "not YAML"),
    ("", 1, "empty"),
    ("provider: {}\n", 1, "provider: there is no such key"),
    ("providers:\n  Bad: {}\n", 2, "a name has letters"),
    ("providers:\n  gate: {}\n", 2, "a name has letters"),
    (MINE + "  mine: {}\n", 8, "given twice"),
    (MINE.replace("https://api.example.com", "http://api.example.com"), 3, "in the clear"),
    (MINE.replace("https://api.example.com", "https://user:pw@api.example.com"), 5, "without user"),
    (MINE.replace("https://api.example.com", "ftp://api.example.com"), 5, "a URL is wanted"),
    (MINE.replace("https://api.example.com", "https://{host}"), 3, "not declared"),
    (MINE.replace("X-Key", "'Ho st'"), 7, "not a header's name"),
    (MINE.replace("api-key:", "magic:"), 7, "no such kind"),
    (MINE.replace("{header: X-Key}", "{header: X-Key, token: 'short-{hex:8}'}"), 7, "32 random bits"),
    (MINE.replace("{header: X-Key}", "{header: X-Key, token: '{what:80}'}"), 7, "unknown placeholder"),
    (MINE.replace("{header: X-Key}", "{header: X-Key, headers: {Content-Length: 1}}"), 7, "belongs to the connection"),
    (MINE + "    websocket: perhaps\n", 8, "true or false"),
    (MINE + "    limits: {per_minute: 0}\n", 8, "a number from 1"),
    (MINE + "    rules:\n      - {name: default, paths: [/x]}\n", 9, "taken"),
    (MINE + "    rules:\n      - {name: one, paths: [x]}\n", 9, "begins with /"),
    (MINE + "    rules:\n      - {name: one, paths: /x}\n", 9, "a list is wanted"),
    (MINE + "    refresh: {url: https://a.example.com, client_id: x}\n", 8, "needs auth.oauth"),
    (MINE + "    foreign: {query: [Key]}\n", 8, "in lower case"),
    (MINE + "    storage: ['*.example.com']\n", 8, "a host name"),
    (MINE + "    suffixes: [json]\n", 8, "an extension"),
    (MINE + "    extends: nothing\n", 8, "no provider 'nothing'"),
    ("agents:\n  one: {title: One, providers: [nothing]}\n", 2, "none of"),
    ("agents:\n  one: {title: One, providers: [openai], env: {PATH: x}}\n", 2, "must not set"),
    ("agents:\n  one: {title: One, providers: [openai], env: {A: '${nothing}'}}\n", 2, "no placeholder"),
    (AGENT + "    files:\n      - {path: ~/../x, text: a}\n", 6, "empty, . or .."),
    (AGENT + "    files:\n      - {path: ~/x}\n", 6, "either text or json"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "problem"), WRONG)
def test_wrong_files_are_refused_with_their_place(layout: Layout, text: str, line: int, problem: str) -> None:
    path = personal(layout, text)
    with pytest.raises(RosterError) as caught:
        files.write_routes(layout)
    assert str(caught.value).startswith(f"{path}:{line}:")
    assert problem in str(caught.value)
    assert not Path(layout.vault_routes).exists()


def test_the_same_name_in_two_personal_files_is_refused(layout: Layout) -> None:
    personal(layout, MINE, "a.yml")
    personal(layout, MINE, "b.yml")
    with pytest.raises(RosterError, match="taken by"):
        files.write_routes(layout)


def test_a_personal_file_may_replace_a_bundled_provider(layout: Layout) -> None:
    personal(layout, MINE.replace("  mine:", "  mistral:"))
    assert files.write_routes(layout).providers["mistral"].title == "My service"
