"""What an HTTP proxy carries, how its URL is written, and the names that no proxy is given."""

from __future__ import annotations

import pytest

from terok_host.sidecars.kit.proxy import egress
from terok_host.sidecars.kit.proxy.egress import Egress

LOGIN, PASSWORD = "jane:open-sesame", "open-sesame"


@pytest.mark.parametrize(
    ("host", "carried"),
    [
        ("api.example.com", True),
        ("203.0.113.9", True),
        ("2001:db8::9", True),
        ("corp.test", False),
        ("CORP.test.", False),
        ("git.corp.test", True),
        ("git.intra.test", False),
        ("intra.test", True),
        ("10.1.2.3", False),
        ("11.1.2.3", True),
        ("fd00::7", False),
        ("127.0.0.1", False),
        ("127.9.9.9", False),
        ("::1", False),
        ("::ffff:127.0.0.1", False),
        ("localhost", False),
        ("box.localhost", False),
        ("10.1.2.3.example.com", True),
    ],
)
def test_what_the_proxy_carries(host: str, carried: bool) -> None:
    rules = tuple(map(egress.parse_rule, ("corp.test", ".intra.test", "10.0.0.0/8", "fd00::7")))
    assert Egress(host="proxy.test", port=3128, direct=rules).carries(host) is carried
    assert not Egress(direct=rules).carries(host)


@pytest.mark.parametrize("text", ["", "10.0.0.1/8", "10.0.0.0/33", "a b", "*", "*.", "ex*mple.com", "1.2.3", "näme.de"])
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(ValueError, match="names"):
        egress.parse_rule(text)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://proxy.corp:3128", (False, "proxy.corp", 3128)),
        ("https://proxy.corp", (True, "proxy.corp", 443)),
        ("http://10.0.0.7:8080/", (False, "10.0.0.7", 8080)),
        ("http://[fd00::7]:8080", (False, "fd00::7", 8080)),
    ],
)
def test_urls(url: str, found: tuple[bool, str, int]) -> None:
    assert egress.parse_url(url) == found


@pytest.mark.parametrize(
    "url",
    ["proxy:3128", "socks5://p:1", "http://p:99999", "http://p:0", "http://p/x", "http://p?x", "http://", "http://1.2"],
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ValueError, match="http://HOST:PORT"):
        egress.parse_url(url)


def test_a_credential_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="terok vault proxy set") as caught:
        egress.parse_url(f"http://{LOGIN}@proxy.corp:3128")
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("api.example.com", ""),
        ("xn--nme-qla.example", ""),
        ("2130706433", "spelling"),
        ("127.1", "spelling"),
        ("0x7f.0.0.1", "spelling"),
        ("0x7f000001", "spelling"),
        ("0177.0.0.1", "spelling"),
        ("metadata.google.internal", "metadata"),
        ("METADATA.google.internal.", "metadata"),
        ("a\r\nX: y", "no"),
        ("a b", "no"),
        ("", "no"),
        (f"{'a' * 64}.example", "no"),
    ],
)
def test_names_that_no_proxy_is_given(host: str, why: str) -> None:
    found = egress.name_refusal(host)
    assert (why in found) if why else not found
