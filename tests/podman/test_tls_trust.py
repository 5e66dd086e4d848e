"""What a hostile image gets out of having its bundle of certificates read and mounted: nothing.

Each test begins with a container that arranges its own root, and looks at what its next start makes of it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab import scope
from tests.lab.house import House

from .test_tls import BUNDLE, count, inside

ANCHORS = "/usr/local/share/ca-certificates"
SHOWN = "cat /run/terok/ca*.pem /etc/ssl/certs/* /etc/ssl/*.pem /etc/pki/tls/*.pem 2>&1"

Restart = Callable[..., str]
"""Runs a script in the container, starts it anew, and returns its log."""


@pytest.fixture(scope="module", autouse=True)
def furnished(house: House) -> None:
    """A scope with a brokered host; nothing is asked of it."""
    scope.furnish(house)


@pytest.fixture
def restart(house: House, name: str) -> Restart:
    """As `Restart` says."""

    def again(script: str, *words: str) -> str:
        house.terok(
            "run", name, "--scope", scope.SCOPE, "--network", "airlock", "--", "--detach", *words, house.image,
            "sh", "-c", f"{script}\nexec sleep 1000",
        )  # fmt: skip
        house.podman("stop", "--time", "0", name)
        house.podman("start", name)
        return Path(house.bundle(name).log).read_text()

    return again


def trusts(house: House, name: str) -> None:
    """The container's own authority is trusted, whatever else was not taken."""
    root = inside(house, name, "cat /run/terok/authority.pem")
    assert count(root) == 1 and inside(house, name, "cat /run/terok/ca.pem").endswith(root)


def test_a_link_leads_nowhere_outside_of_the_image(house: House, name: str, restart: Restart) -> None:
    secret = house.base / "host-only.pem"
    secret.write_text("HOST ONLY\n")
    secret.chmod(0o644)
    restart(f"""
        mkdir -p /etc/ssl/certs /etc/pki/tls
        ln -s {"../" * 12}{secret} {BUNDLE}; ln -s {secret} /etc/ssl/cert.pem
        ln -s /proc/1/root{secret} /etc/ssl/ca-bundle.pem
        ln -s /proc/1/cwd/../../../../../../../../../..{secret} /etc/pki/tls/cert.pem
    """)
    assert "HOST ONLY" not in inside(house, name, SHOWN)
    trusts(house, name)


def test_what_not_every_user_may_read_is_not_shown(house: House, name: str, restart: Restart) -> None:
    restart(f"mkdir -p /etc/ssl/certs; echo ROOTS ONLY > {BUNDLE}; chmod 600 {BUNDLE}")
    assert "ROOTS ONLY" not in inside(house, name, "cat /run/terok/ca*.pem")
    assert inside(house, name, f"cat {BUNDLE}") == "ROOTS ONLY\n", "and stays as it is"
    trusts(house, name)


def test_what_the_kernel_shows_is_no_bundle(house: House, name: str, restart: Restart) -> None:
    """Files of /proc and /sys read differently for the hook, which has the host's namespaces."""
    restart(f"""
        mkdir -p /etc/ssl/certs /etc/pki/tls
        ln -s /proc/version {BUNDLE}; ln -s /proc/sys/kernel/hostname /etc/ssl/cert.pem
        ln -s /proc/mounts /etc/pki/tls/cert.pem; ln -s /sys/kernel/notes /etc/ssl/ca-bundle.pem
    """)
    shown = inside(house, name, "cat /run/terok/ca*.pem")
    assert (
        "Linux version" not in shown
        and shown.startswith("-----BEGIN")
        and not inside(house, name, "ls /run/terok/ca-*").startswith("/run")
    )
    trusts(house, name)


def test_what_is_no_file_and_what_is_too_large(house: House, name: str, restart: Restart) -> None:
    log = restart(f"""
        mkdir -p /etc/ssl/certs {BUNDLE} /etc/pki/tls
        mkfifo /etc/ssl/cert.pem; truncate -s 4194305 /etc/ssl/ca-bundle.pem; cp /etc/passwd /etc/pki/tls/cert.pem
        mkdir -p /var/lib/ca-certificates; ln -s /dev/urandom /var/lib/ca-certificates/ca-bundle.pem
    """)
    assert "/etc/ssl/ca-bundle.pem of the image cannot be read" in log and "larger than 4 MiB" in log
    assert "/var/lib/ca-certificates" not in log and "/etc/ssl/cert.pem" not in log, "a device is not even opened"
    assert inside(house, name, "stat -c %s /etc/ssl/ca-bundle.pem") == "4194305\n"
    assert "work:x:1000" in inside(house, name, "cat /run/terok/ca.pem"), "text of any kind is copied as bytes"
    trusts(house, name)


def test_nothing_is_made_outside_of_the_image(house: House, name: str, restart: Restart) -> None:
    made = house.base / "made-by-the-hook"
    restart(
        f"mkdir -p {ANCHORS} /etc/pki/trust; ln -s {made} {ANCHORS}/terok.crt\n"
        f"ln -s {house.base} /etc/pki/trust/anchors"
    )
    assert not made.exists() and not (house.base / "terok.crt").exists()
    trusts(house, name)


def test_nothing_is_made_in_a_volume(house: House, name: str, restart: Restart) -> None:
    shown = house.base / "anchors"
    shown.mkdir()
    restart("true", "--volume", f"{shown}:{ANCHORS}", "--volume", f"{shown}:/usr/lib/ssl")
    assert list(shown.iterdir()) == []
    trusts(house, name)
    shown.rmdir()


def test_what_is_mounted_cannot_be_written(house: House, name: str, restart: Restart) -> None:
    restart(f"mkdir -p /etc/ssl/certs {ANCHORS}; echo own > {BUNDLE}")
    for place in (BUNDLE, f"{ANCHORS}/terok.crt", "/run/terok/ca.pem"):
        assert "Read-only" in inside(house, name, f"echo x >> {place}"), place
        assert inside(house, name, f"umount {place}; mount -o remount,rw {place}; chmod 666 {place}; echo x >> {place}")
        assert "x" not in inside(house, name, f"tail -n1 {place}").split()
    trusts(house, name)
