"""The version with the commit: read from a working copy's files, kept by a wheel and a source archive."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from terok_host.runtime.host import release

CHECKOUT = Path(__file__).resolve().parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FLOORS = ("supervisor", "hookbin", "sidecars", "runtime", "selinux")
FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE")


def git(directory: Path, *words: str) -> str:
    """What git prints, whatever is configured on this machine."""
    env = {"PATH": "/usr/bin:/bin", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    command = ["git", *who, "-C", str(directory), *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


def built(source: Path, backend: str, target: Path) -> Path:
    """What the build backend makes of a source tree: a wheel or a source archive."""
    target.mkdir()
    program = f"import sys\nfrom setuptools import build_meta\nbuild_meta.build_{backend}(sys.argv[1])"
    command = [sys.executable, "-c", program, str(target)]
    subprocess.run(command, cwd=source, capture_output=True, check=True, timeout=100)
    return next(target.iterdir())


def stamped(wheel: Path) -> str:
    """The stamp in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(f"terok_host/runtime/host/{release.STAMP}").decode()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit."""
    path = tmp_path / "repository"
    path.mkdir()
    (path / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1.2.3"\n')
    git(path, "init", "-q", "-b", "main")
    git(path, "add", ".")
    git(path, "commit", "-q", "-m", "one")
    return path


def test_a_working_copy_names_the_commit_that_is_checked_out(repository: Path, tmp_path: Path) -> None:
    head = git(repository, "rev-parse", "HEAD")[:7]
    assert release.version(str(tmp_path), str(repository)) == f"1.2.3 ({head})"
    git(repository, "pack-refs", "--all")
    assert release.commit(str(repository)) == head
    git(repository, "checkout", "-q", "--detach")
    assert release.commit(str(repository)) == head
    git(repository, "worktree", "add", "-q", "-b", "other", str(tmp_path / "worktree"))
    git(tmp_path / "worktree", "commit", "-q", "--allow-empty", "-m", "two")
    other = git(tmp_path / "worktree", "rev-parse", "HEAD")[:7]
    assert other != head and release.commit(str(tmp_path / "worktree")) == other
    git(repository, "pack-refs", "--all")
    assert release.commit(str(tmp_path / "worktree")) == other and release.commit(str(repository)) == head


def test_no_repository_no_commit(tmp_path: Path, repository: Path) -> None:
    shutil.copy(repository / "pyproject.toml", tmp_path)
    assert release.version(str(tmp_path), str(tmp_path)) == "1.2.3"
    assert release.version(str(tmp_path), str(tmp_path / "nothing")) == "0+source"
    # a directory inside of another project's repository is not that project
    (repository / "inner").mkdir()
    assert release.commit(str(repository / "inner")) == ""


@pytest.mark.parametrize("head", ["", "ref: refs/heads/.invalid\n", "ref: ", "\x1b[31m" + "a" * 35, "a" * 39, "A" * 40])
def test_a_head_that_is_no_commit(tmp_path: Path, head: str) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/HEAD").write_text(head)
    assert release.commit(str(tmp_path)) == ""


def test_the_stamp_counts_before_the_tree_around_it(tmp_path: Path, repository: Path) -> None:
    (tmp_path / release.STAMP).write_text(f"4.5.6 {COMMIT[:7]}\n")
    assert release.version(str(tmp_path), str(repository)) == "4.5.6 (0123456)"
    assert release.stamp("4.5.7", str(tmp_path), str(tmp_path)) == "4.5.7 0123456\n"
    (tmp_path / release.STAMP).write_text("4.5.6\n")
    assert release.version(str(tmp_path), str(repository)) == "4.5.6"


def test_wheels_and_source_archives_keep_it(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in FLOORS:
        shutil.copytree(CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(CHECKOUT / name, source)
    number = release._number(str(source))
    (source / ".git").mkdir()
    (source / ".git/HEAD").write_text(COMMIT + "\n")
    assert stamped(built(source, "wheel", tmp_path / "wheel")) == f"{number} 0123456\n"
    archive = built(source, "sdist", tmp_path / "sdist")
    (tmp_path / "unpacked").mkdir()
    subprocess.run(["tar", "-xf", str(archive), "-C", str(tmp_path / "unpacked")], check=True, timeout=30)
    again = next((tmp_path / "unpacked").iterdir())
    assert not (again / ".git").exists()
    assert stamped(built(again, "wheel", tmp_path / "again")) == f"{number} 0123456\n"
    assert not (source / "runtime/host" / release.STAMP).exists()  # nor does a build leave one in the working copy
