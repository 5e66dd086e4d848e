"""`make deb`: what the package contains, that it is the same each time, and that the program runs from it."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from terok_host.runtime import completion, pages

CHECKOUT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]


def build(target: Path, mask: int = 0o022, **environ: str) -> Path:
    """The package, built by the script."""
    command = ["bash", str(CHECKOUT / "packaging/deb.sh"), str(target)]
    env = {**os.environ, "PYTHON": sys.executable, **environ}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=100, umask=mask)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def dpkg(*words: str | Path) -> str:
    """What dpkg-deb prints."""
    return subprocess.run(["dpkg-deb", *words], capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("deb"), SOURCE_DATE_EPOCH="1700000000")


@pytest.fixture(scope="module")
def root(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the package is unpacked."""
    path = tmp_path_factory.mktemp("root")
    dpkg("--extract", package, path)
    return path


def test_the_package_names_what_it_needs(package: Path) -> None:
    assert package.name == f"terok-host_{PROJECT['version']}_all.deb"
    depends = dpkg("--field", package, "Depends").strip().split(", ")
    for need in PROJECT["dependencies"]:
        name, _, minimum = need.lower().replace("pyyaml", "yaml").removeprefix("python-").partition(">=")
        assert (f"python3-{name} (>= {minimum})" in depends) == (name != "textual")
    assert {"podman", "crun", "nftables", "dnsmasq-base", "uidmap"} <= set(depends)


def test_everything_belongs_to_root_and_is_readable(package: Path) -> None:
    rows = [line.split() for line in dpkg("--contents", package).splitlines()]
    assert {row[1] for row in rows} == {"root/root"}
    assert {row[0] for row in rows} == {"drwxr-xr-x", "-rw-r--r--", "-rwxr-xr-x", "lrwxrwxrwx"}
    programs = {row[5] for row in rows if row[0] == "-rwxr-xr-x"}
    assert programs == {f"./usr/bin/{name}" for name in PROJECT["scripts"]}
    assert not [row for row in rows if "__pycache__" in row[5] or str(CHECKOUT) in " ".join(row)]


def test_pages_and_completion_are_where_debian_looks(root: Path) -> None:
    share = root / "usr/share"
    for name in pages.PROGRAMS:
        assert (share / f"bash-completion/completions/{name}").is_file()
        assert (share / f"zsh/vendor-completions/_{name}").read_text().startswith("#compdef")
        assert (share / f"fish/vendor_completions.d/{name}.fish").is_file()
    manual = sorted(path.name for path in (share / "man/man1").iterdir())
    assert manual == sorted(f"{name}.gz" for name in pages.manual("0"))
    page = (share / "man/man1/terok-run.1.gz").read_bytes()
    assert page[3:8] == bytes(5)  # neither a name nor a time of the file that was compressed
    assert b"2023" in gzip.decompress(page).splitlines()[0]
    assert (share / "doc/terok-host/copyright").is_file()
    assert gzip.decompress((share / "doc/terok-host/changelog.gz").read_bytes()).startswith(b"# Changelog")


def test_terok_completion_prints_the_compressed_page(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(root / "usr"))
    assert (completion.installed("share/man/man1/terok.1") or "").startswith('.TH TEROK "1"')
    assert completion.installed(completion.SCRIPTS["zsh"])


@pytest.mark.parametrize("name", pages.PROGRAMS)
def test_the_unpacked_program_runs_from_there(root: Path, tmp_path: Path, name: str) -> None:
    python = ["/usr/bin/python3", "-S", f"{root}/usr/bin/{name}"]  # no other terok_host, whatever is installed here
    env = {"PYTHONPATH": f"{root}/usr/lib/python3/dist-packages", "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([*python, "--version"], env=env, capture_output=True, text=True, check=True, timeout=30)
    assert re.fullmatch(rf"{name} {re.escape(PROJECT['version'])}( \([0-9a-f]{{7}}\))?\n", done.stdout)


def test_one_commit_gives_one_package(package: Path, tmp_path: Path) -> None:
    again = build(tmp_path / "again", mask=0o077, SOURCE_DATE_EPOCH="1700000000", TZ="Asia/Tokyo", LC_ALL="C")
    assert again.read_bytes() == package.read_bytes()
