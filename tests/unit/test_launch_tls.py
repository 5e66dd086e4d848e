"""What is terminated for a scope, what its agents get then, and the trust store for Java."""

from __future__ import annotations

import base64
import json
import subprocess
import tomllib
from pathlib import Path

import pytest
import trustme
import yaml

from terok_host.runtime.kit.config import VaultConfig
from terok_host.runtime.launch.tls import java, wiring
from terok_host.sidecars.roster import agents, files
from terok_host.sidecars.roster.model import Catalog
from terok_host.supervisor.ground.layout import Layout


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """The shipped roster."""
    base = str(tmp_path_factory.mktemp("roster"))
    return files.load(Layout(base, base, base))[0]


def held(*names: str) -> dict[str, dict[str, object]]:
    return {name: {"auth": "api-key"} for name in names}


def test_hosts_and_what_is_left_out(catalogue: Catalog) -> None:
    everything = held("anthropic", "github")
    found = wiring.decide(VaultConfig(), "work", catalogue, everything)
    assert {"api.anthropic.com:443", "api.github.com:443", "github.com:443"} <= set(found.hosts)
    assert set(found.providers) == {"anthropic", "github"}
    assert wiring.decide(VaultConfig(tls=False), "work", catalogue, everything) == wiring.Brokered()
    assert wiring.decide(VaultConfig(tls_except=("work/",)), "work", catalogue, everything) == wiring.Brokered()
    assert wiring.decide(VaultConfig(tls_except=("other/", "other/github.com")), "work", catalogue, everything) == found
    for entry in ("github.com", "work/github.com"):
        part = wiring.decide(VaultConfig(tls_except=(entry,)), "work", catalogue, everything)
        assert "github.com:443" not in part.hosts and "api.github.com:443" in part.hosts
        assert part.providers == ("anthropic",)  # gh would talk to one host with an address, and to one without


def test_a_plain_upstream_keeps_its_address(catalogue: Catalog) -> None:
    local = {"custom": {"auth": "api-key", "upstream": "http://10.0.0.1:8000", "allow_private": True}}
    assert wiring.decide(VaultConfig(), "work", catalogue, local) == wiring.Brokered()


def test_agents_get_no_address_of_the_vaults(catalogue: Catalog) -> None:
    """Every agent with every provider: what it gets is whole, readable and names the provider's own hosts only."""
    for name, agent in catalogue.agents.items():
        for provider in agent.providers:
            known = catalogue.provider(provider)
            assert known is not None
            for kind in known.auth:
                meta: dict[str, object] = {"auth": kind}
                if known.custom:
                    meta["upstream"] = "https://llm.example.com"
                having = {provider: meta}
                tokens = {provider: "phantom0123456789abcdefghij"}
                need = agents.wanted(catalogue, name, tokens=tokens, held=having, tls=(provider,))
                before = agents.wanted(catalogue, name, tokens=tokens, held=having)
                assert need is not None and before is not None
                text = str((need.env, need.files, need.git))
                assert "9419" not in text and "vault.sock" not in text and "${" not in text, (name, provider, text)
                assert {file.path for file in need.files} == {file.path for file in before.files}, (name, provider)
                for file in need.files:
                    readable(file.path, file.content)


def readable(path: str, content: str) -> None:
    if path.endswith(".json"):
        json.loads(content)
    elif path.endswith(".toml"):
        tomllib.loads(content)
    elif path.endswith(".yml"):
        assert yaml.safe_load(content)


def test_gits_helper_answers_git(tmp_path: Path) -> None:
    environ = agents.git_env(
        [("credential.https://github.com.helper", agents.git_helper("x-access-token", "gho_it's"))]
    )
    environ |= {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "GIT_TERMINAL_PROMPT": "0"}
    asked = "protocol=https\nhost=github.com\n\n"
    git = ["git", "credential"]
    answer = subprocess.run([*git, "fill"], input=asked, env=environ, capture_output=True, text=True, timeout=20)
    assert "username=x-access-token\npassword=gho_it's\n" in answer.stdout, answer.stderr
    rejected = subprocess.run(
        [*git, "reject"], input=answer.stdout.encode(), env=environ, capture_output=True, timeout=20
    )
    assert (rejected.returncode, rejected.stdout) == (0, b"")
    other = asked.replace("github.com", "gitlab.com")
    refused = subprocess.run([*git, "fill"], input=other.encode(), env=environ, capture_output=True, timeout=20)
    assert b"gho_" not in refused.stdout


def test_java_reads_the_trust_store(tmp_path: Path) -> None:
    pem = b"".join(trustme.CA().cert_pem.bytes() for _ in range(3))
    ders = list(java.certificates(b"# text\r\n" + pem.replace(b"\n", b"\r\n") + b"-----BEGIN CERTIFICATE-----\n%\n"))
    assert len(ders) == 3
    store = tmp_path / "trust.jks"
    store.write_bytes(java.build([*ders, ders[0]]))
    words = ["keytool", "-list", "-rfc", "-keystore", str(store), "-storetype", "JKS", "-storepass", java.PASSWORD]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    listed = set(java.certificates(done.stdout.encode()))
    assert listed == set(ders), base64.b64encode(next(iter(listed)))


def test_a_host_that_the_shield_cannot_name_stays_at_the_vaults_address(catalogue: Catalog) -> None:
    """`localhost`, a short name of an intranet, a loopback address: the container starts, and is told the vault's."""
    for host in ("localhost:8443", "ollama", "127.0.0.1:8443"):
        held: dict[str, dict[str, object]] = {"openai": {"auth": "api-key", "upstream": f"https://{host}"}}
        assert wiring.decide(VaultConfig(), "work", catalogue, held) == wiring.Brokered()
