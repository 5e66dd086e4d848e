"""Chromium and Firefox in a container: they trust its authority by a policy.

The machine's own browsers are shown to the container, as the other clients are; the policies' form is looked at in any
case, and each browser that is installed here has to open a page.
"""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.lab import scope
from tests.lab.house import House
from tests.standins.upstream import Conversation, Request, Upstream

from .test_tls import HOST, inside
from .test_tls_clients import SHOWN

CHROMIUM, CHROME = "/etc/chromium/policies/managed", "/etc/opt/chrome/policies/managed"
FIREFOX = "/etc/firefox/policies/policies.json"
URL = f"https://{HOST}/page"
PAGE = b"<html><body>a page behind the vault</body></html>"
BROWSERS = {
    "chromium": f"chromium --headless --no-sandbox --disable-gpu --user-data-dir=/tmp/c --dump-dom {URL}",
    "firefox-esr": f"firefox-esr --headless --no-remote --profile /tmp/f --screenshot /tmp/shot.png {URL}",
}
HERE = [name for name in BROWSERS if shutil.which(name)]


def page(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    talk.read_body(request)
    talk.answer(PAGE, headers="Content-Type: text/html\r\n")
    return True


@pytest.fixture(scope="module")
def vendor(vendor: Upstream) -> Upstream:
    """The scope's provider, which has a page for visitors without a credential."""
    vendor.handlers["/page"] = page
    return vendor


def restart(house: House, name: str, script: str, *words: str, network: str = "airlock") -> None:
    """Start a container that arranges its root, and start it anew."""
    house.terok(
        "run", name, "--scope", scope.SCOPE, "--network", network, "--", "--detach", *words, house.image,
        "sh", "-c", f"{script}\nexec sleep 1000",
    )  # fmt: skip
    house.podman("stop", "--time", "0", name)
    house.podman("start", name)


def test_policies_where_a_browser_is(house: House, name: str, vendor: Upstream) -> None:
    restart(house, name, "mkdir -p /usr/lib/chromium /opt/google/chrome /etc/firefox-esr")
    for _ in range(2):  # the empty files that the first start made for its mounts are no policies of the image's
        root = x509.load_pem_x509_certificate(inside(house, name, "cat /run/terok/authority.pem").encode())
        for directory in (CHROMIUM, CHROME):
            policy = json.loads(inside(house, name, f"cat {directory}/terok.json"))
            assert [base64.b64decode(each) for each in policy.pop("CACertificates")] == [
                root.public_bytes(Encoding.DER)
            ]
            assert policy == {}
        installed = json.loads(inside(house, name, f"cat {FIREFOX}"))
        assert installed == {"policies": {"Certificates": {"Install": ["/run/terok/authority.pem"]}}}
        assert "Read-only" in inside(house, name, f"echo x > {FIREFOX}")
        house.podman("stop", "--time", "0", name)
        house.podman("start", name)


def test_an_image_without_a_browser_and_one_with_policies(house: House, name: str, vendor: Upstream) -> None:
    own = f"mkdir -p {Path(FIREFOX).parent}; echo own > {FIREFOX}"
    restart(house, name, own)
    assert inside(house, name, f"cat {FIREFOX}") == "own\n"
    assert "is the image's own" in Path(house.bundle(name).log).read_text()
    assert "No such file" in inside(house, name, f"ls {CHROMIUM} {CHROME}")


def test_a_policy_is_no_way_out_of_the_image(house: House, name: str, vendor: Upstream) -> None:
    away = house.base / "away"
    away.mkdir()
    restart(
        house,
        name,
        f"ln -s {away} /etc/chromium; ln -s {away} /etc/firefox; mkdir -p /usr/lib/chromium /usr/lib/firefox {away}\n"
        f"mkdir -p /opt/google/chrome {CHROME}; ln -s {away}/made {CHROME}/terok.json",
    )
    assert list(away.iterdir()) == []
    away.rmdir()


@pytest.mark.parametrize("network", ["airlock", "auto"])
@pytest.mark.parametrize("browser", HERE)
def test_a_browser_opens_a_page(house: House, name: str, vendor: Upstream, browser: str, network: str) -> None:
    paths = [*SHOWN, "/etc/fonts", "/etc/chromium.d"]
    shown = [word for path in paths if Path(path).exists() for word in ("--volume", f"{path}:{path}:ro")]
    prepare = "mkdir -p /etc/chromium /etc/firefox /tmp/f"
    restart(house, name, prepare, *shown, "--shm-size", "256m", network=network)
    vendor.seen.clear()
    said = house.podman("exec", "--env", "HOME=/tmp", name, "sh", "-c", BROWSERS[browser], check=False, timeout=60)
    assert [request.path for request in vendor.seen if request.path == "/page"], said.stdout + said.stderr
    if browser == "chromium":
        assert PAGE.decode()[12:-14] in said.stdout
