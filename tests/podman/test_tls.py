"""HTTPS at the providers' own hosts: trust in the container, clients without a base URL, what survives, what is not."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import trustme
from cryptography import x509

from tests.lab import scope
from tests.lab.house import House
from tests.standins.upstream import Upstream

HOST = "upstream.test"
URL = f"https://{HOST}/v1/models"
CODE = '-o /dev/null -w "%{http_code}"'
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


def start(house: House, name: str, network: str = "airlock") -> None:
    words = ("--scope", scope.SCOPE, "--network", network)
    house.terok("run", name, *words, "--", "--detach", house.image, "sleep", "1000")


def inside(house: House, name: str, script: str, *words: str) -> str:
    """What a shell command in the container prints, with its errors."""
    done = house.podman("exec", *words, name, "sh", "-c", script, check=False)
    return done.stdout + done.stderr


def count(pem: str) -> int:
    return pem.count("BEGIN CERTIFICATE")


@pytest.mark.parametrize("network", ["airlock", "auto", "bridge", "none"])
def test_curl_with_a_phantom_token_and_no_configuration(
    house: House, name: str, vendor: Upstream, network: str
) -> None:
    start(house, name, network)
    variables = inside(house, name, "env")
    assert "ANTHROPIC_API_KEY=" in variables and "ANTHROPIC_BASE_URL" not in variables
    token = inside(house, name, "printf %s $ANTHROPIC_API_KEY")
    assert inside(house, name, f'curl -sS -m 20 {CODE} -H "x-api-key: $ANTHROPIC_API_KEY" {URL}') == "200"
    asked = vendor.seen[-1]
    assert asked.header("x-api-key") == scope.SECRET
    assert token not in str(asked.headers) and scope.SECRET not in inside(house, name, "cat /run/terok/* 2>&1; env")
    # the same authority after a stop, and after another prepare
    root = inside(house, name, "cat /run/terok/authority.pem")
    assert count(root) == 1
    house.podman("stop", "--time", "0", name)
    house.podman("start", name)
    assert inside(house, name, "cat /run/terok/authority.pem") == root
    assert inside(house, name, f'curl -sS -m 20 {CODE} -H "x-api-key: $ANTHROPIC_API_KEY" {URL}') == "200"


def test_the_images_own_bundle_is_kept_and_every_place_has_ours(house: House, name: str, vendor: Upstream) -> None:
    places = house.base / "places"
    shutil.rmtree(places, ignore_errors=True)
    places.mkdir()
    own = trustme.CA().cert_pem.bytes().decode().strip()  # no line end behind it
    (places / "own.crt").write_text(own)
    os.mkfifo(places / "fifo")
    with open(places / "huge", "wb") as file:
        file.truncate(1 << 30)
    script = f"""
        mkdir -p /etc/ssl/certs /etc/pki/tls/certs /etc/ssl/certs /usr/lib/ssl /var/lib/ca-certificates /usr/local/share
        cp /p/own.crt {BUNDLE} && ln -s {BUNDLE} /etc/ssl/cert.pem && cp /p/own.crt /etc/ssl/ca-bundle.pem
        mkfifo /etc/pki/tls/certs/ca-bundle.crt; ln -s /proc/kmsg /etc/pki/tls/cert.pem
        truncate -s 1G /var/lib/ca-certificates/ca-bundle.pem; exec sleep 1000
    """
    house.terok("run", name, "--scope", scope.SCOPE, "--network", "airlock", "--", "--detach", "-v", f"{places}:/p:ro",
                house.image, "sh", "-c", script)  # fmt: skip
    house.podman("stop", "--time", "0", name)
    house.podman("start", name)
    root = inside(house, name, "cat /run/terok/authority.pem")
    for place in (BUNDLE, "/etc/ssl/cert.pem", "/etc/ssl/ca-bundle.pem", "/run/terok/ca.pem", "/usr/lib/ssl/cert.pem"):
        content = inside(house, name, f"cat {place}")
        assert content.endswith(root) and own in content and count(content) == 2, place
    assert inside(house, name, "cat /usr/local/share/ca-certificates/terok.crt") == root
    assert inside(house, name, "stat -c %s /var/lib/ca-certificates/ca-bundle.pem") == "1073741824\n"
    assert inside(house, name, "test -p /etc/pki/tls/certs/ca-bundle.crt && echo fifo") == "fifo\n"
    assert "Read-only" in inside(house, name, f"echo x > {BUNDLE}")
    log = Path(house.bundle(name).log).read_text()
    assert "/var/lib/ca-certificates/ca-bundle.pem of the image cannot be read" in log
    bare = "env -u CURL_CA_BUNDLE -u SSL_CERT_FILE curl"
    ask = f'-sS -m 20 {CODE} -H "x-api-key: $ANTHROPIC_API_KEY" {URL}'
    assert inside(house, name, f"{bare} {ask}") == "200"


def test_off_by_configuration_and_without_the_shield(house: House, name: str, vendor: Upstream) -> None:
    house.terok("prepare", name, "--scope", scope.SCOPE, "--no-shield")
    assert "ANTHROPIC_BASE_URL=http://127.0.0.1:9419" in Path(house.bundle(name).env).read_text()
    for entry in (("--host", HOST), ("--scope", scope.SCOPE), ("--scope", scope.SCOPE, "--host", HOST), ()):
        house.terok("vault", "tls", "off", *entry)
        try:
            house.terok("prepare", name, "--scope", scope.SCOPE, "--network", "airlock")
        finally:
            house.terok("vault", "tls", "on", *entry)
        env = Path(house.bundle(name).env).read_text()
        assert "ANTHROPIC_BASE_URL=http://127.0.0.1:9419" in env and "SSL_CERT_FILE" not in env, entry
        assert not os.path.exists(house.bundle(name).authority)


def test_the_authority_is_kept_while_the_hosts_are_the_same(house: House, name: str, vendor: Upstream) -> None:
    prepare = ("prepare", name, "--scope", scope.SCOPE, "--network", "airlock")
    house.terok(*prepare)
    root = Path(house.bundle(name).authority).read_bytes()
    house.terok(*prepare)
    assert Path(house.bundle(name).authority).read_bytes() == root
    named = x509.load_pem_x509_certificate(root).extensions.get_extension_for_class(x509.NameConstraints).value
    assert [each.value for each in named.permitted_subtrees or () if isinstance(each, x509.DNSName)] == [HOST]
    assert json.loads(Path(house.bundle(name).sidecar).read_text())["trust"] is True


def test_explained_and_shown(house: House, name: str, vendor: Upstream) -> None:
    start(house, name)

    def explain(*words: str, code: int = 0) -> dict[str, object]:
        done = house.terok("explain", name, *words, "--json", check=False)
        assert done.returncode == code, done.stderr
        found: dict[str, object] = json.loads(done.stdout)
        return found

    fine = explain(URL)
    assert (fine["way"], fine["provider"], fine["credential"]) == ("terminated", "anthropic", "phantom")
    denied = explain(f"https://{HOST}/v1/organizations/x", code=4)
    assert (denied["way"], denied["rule"]) == ("terminated", "no-administration")
    assert explain(f"http://{HOST}/", code=4)["allowed"] is False
    unknown = explain("https://unknown.test/x", code=4)
    assert "shield allow" in str(unknown["fix"]) and unknown["way"] == "refused"
    assert house.terok("explain", name, "ftp://x", check=False).returncode == 2
    # what it says is what happens
    ask = 'curl -sS -m 20 -H "x-api-key: $ANTHROPIC_API_KEY"'
    assert '"rule:no-administration"' in inside(house, name, f"{ask} https://{HOST}/v1/organizations/x")
    shown = house.terok("vault", "authority", name, "--text").stdout
    assert f"hosts:   {HOST}\n" in shown
    assert house.terok("vault", "authority", name).stdout.strip() in inside(house, name, "cat /run/terok/ca.pem")
    house.terok("vault", "add", "other", "anthropic", stdin=scope.SECRET + "\n")
    added = house.terok("vault", "add", scope.SCOPE, "mistral", stdin="mistral-key-0123456789abcdefghij\n")
    assert f"{name}: usable at http://127.0.0.1:9419 now" in added.stderr
    house.terok("vault", "remove", scope.SCOPE, "mistral")
    house.terok("vault", "remove", "other", "anthropic")


@pytest.mark.parametrize("network", ["airlock", "default", "bridge", "none"])
def test_a_container_with_annotations_alone(house: House, vendor: Upstream, network: str) -> None:
    mode = {"airlock": ["--annotation=terok.network=airlock"], "default": []}.get(network, [f"--network={network}"])
    words = [f"--annotation=terok.scope={scope.SCOPE}", *mode]
    read = 'while IFS= read -r line; do export "$line"; done </run/terok/env'
    ask = f'curl -sS -m 20 {CODE} -H "x-api-key: $ANTHROPIC_API_KEY" {URL}'
    done = house.podman("run", "--rm", *words, house.image, "sh", "-c", f"{read}; {ask}")
    assert done.stdout == "200", done.stderr
    assert vendor.seen[-1].header("x-api-key") == scope.SECRET
