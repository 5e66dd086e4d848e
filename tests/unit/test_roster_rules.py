"""What the shipped rules deny: new credentials and what outlives the container, however it is spelled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from terok_host.sidecars.roster import catalog, compile, files
from terok_host.sidecars.roster.model import Provider
from terok_host.sidecars.vault.routes import Route


@pytest.fixture(scope="module")
def providers() -> Mapping[str, Provider]:
    paths = sorted(str(path) for path in Path(files.bundled()).glob("*.yml"))
    return compile.compile_files(paths).providers


def allowed(providers: Mapping[str, Provider], name: str, method: str, path: str) -> bool:
    kind = next(iter(providers[name].auth))
    route = Route(name, catalog.effective(providers[name], {}), kind)
    rule = route.rule((method.encode(),), path.encode())
    return rule is not None and rule.allow


DENIED = [
    ("github", "POST", "/user/keys"),
    ("github", "POST", "/user/keys.json"),
    ("github", "POST", "/repositories/1296269/keys"),
    ("github", "POST", "/repositories/1296269/hooks"),
    ("github", "DELETE", "/repositories/1296269"),
    ("github", "POST", "/app-manifests/abc/conversions"),
    ("github", "POST", "/enterprises/acme/actions/runners/registration-token"),
    ("github", "POST", "/repos/o/r/actions/runners/generate-jitconfig"),
    ("github", "PUT", "/repos/o/r/collaborators/eve"),
    ("github", "PUT", "/orgs/o/memberships/eve"),
    ("github", "POST", "/repos/o/r/transfer"),
    ("github", "POST", "/login/oauth/access_token"),
    ("gitlab", "POST", "/api/v4/user/keys"),
    ("gitlab", "POST", "/api/v4/projects/1/triggers"),
    ("gitlab", "GET", "/api/v4/projects/1/triggers"),
    ("gitlab", "POST", "/api/v4/projects/1/cluster_agents/2/tokens"),
    ("gitlab", "POST", "/api/v4/groups/1/hooks"),
    ("gitlab", "PUT", "/api/v4/groups/1/hooks/3"),
    ("gitlab", "POST", "/api/v4/groups/1/service_accounts/5/personal_access_tokens"),
    ("gitlab", "POST", "/api/v4/service_accounts"),
    ("gitlab", "POST", "/api/v4/projects/1/runners/reset_registration_token"),
    ("gitlab", "POST", "/api/v4/groups/1/runners/reset_registration_token"),
    ("gitlab", "POST", "/api/v4/runners/7/reset_authentication_token"),
    ("gitlab", "POST", "/api/v4/applications"),
    ("gitlab", "GET", "/api/v4/projects/1/variables/SECRET"),
    ("gitlab", "POST", "/api/graphql"),
    ("gitlab", "POST", "/oauth/token"),
    ("huggingface", "GET", "/api/models/gpt2/xet-read-token/main"),
    ("huggingface", "GET", "/api/models/org/name/xet-write-token/main"),
    ("openai", "POST", "/v1/realtime/client_secrets"),
    ("openai", "GET", "/v1/organization/admin_api_keys"),
    ("openrouter", "POST", "/api/v1/keys"),
    ("anthropic", "POST", "/v1/organizations/x/api_keys"),
    ("anthropic", "POST", "/v1/oauth/token"),
    ("npm", "POST", "/-/npm/v1/tokens"),
    ("npm", "PUT", "/-/org/acme/user"),
    ("sonar", "POST", "/api/user_tokens/generate"),
    ("google", "POST", "/v1alpha/auth_tokens"),
]


@pytest.mark.parametrize(("name", "method", "path"), DENIED)
def test_denied_in_every_spelling_that_the_upstream_takes(
    providers: Mapping[str, Provider], name: str, method: str, path: str
) -> None:
    suffixes = ["", "/"]
    if ".*" in providers[name].suffixes and "." not in path:
        suffixes += [".json", ".xml", ".json/"]
    assert [suffix for suffix in suffixes if allowed(providers, name, method, path + suffix)] == []


@pytest.mark.parametrize(
    ("name", "method", "path"),
    [
        ("github", "GET", "/repos/o/r/pulls"),
        ("github", "POST", "/repos/o/r/pulls"),
        ("github", "POST", "/graphql"),
        ("github", "GET", "/repositories/1296269/issues"),
        ("github", "GET", "/user"),
        ("github", "GET", "/o/r.git/info/refs"),
        ("github", "POST", "/o/r.git/git-upload-pack"),
        ("gitlab", "GET", "/api/v4/user"),
        ("gitlab", "GET", "/api/v4/projects/g%2Fp/members/all"),
        ("gitlab", "POST", "/api/v4/projects/1/merge_requests"),
        ("gitlab", "POST", "/g/p.git/git-upload-pack"),
        ("huggingface", "GET", "/api/models/gpt2"),
        ("huggingface", "POST", "/org/name.git/info/lfs/objects/batch"),
        ("openai", "POST", "/v1/chat/completions"),
        ("anthropic", "POST", "/v1/messages"),
        ("pypi", "POST", "/legacy/"),
        ("npm", "PUT", "/my-package"),
    ],
)
def test_what_agents_do_all_day_is_allowed(
    providers: Mapping[str, Provider], name: str, method: str, path: str
) -> None:
    assert allowed(providers, name, method, path)


def test_foreign_places_and_storage_are_declared(providers: Mapping[str, Provider]) -> None:
    for provider in providers.values():
        assert {"private_token", "access_token", "job_token"} <= set(provider.foreign_query)
        assert not set(provider.foreign_query) & set(provider.token_query)
        assert not any("*" in host for host in provider.storage)
    assert providers["openai"].foreign_headers == ("openai-account", "openai-organization", "openai-project")
    assert "release-assets.githubusercontent.com" in providers["github"].storage
