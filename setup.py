"""Adds completion scripts and man pages, made from the table of verbs, and the commit to what pyproject.toml says."""

from __future__ import annotations

import os
import sys
import types

from setuptools import Command, setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = os.path.dirname(os.path.abspath(__file__))


def importable() -> None:
    """Make the floors of this tree importable as `terok_host`."""
    package = types.ModuleType("terok_host")
    package.__path__ = [ROOT]
    sys.modules["terok_host"] = package


def write_stamp(directory: str, number: str) -> str:
    """Write the release stamp into the copy of the floor `runtime` that is `directory`; returns its path."""
    importable()
    from terok_host.runtime.host import release

    path = os.path.join(directory, "host", release.STAMP)
    if os.path.exists(path):
        os.unlink(path)  # a source archive's may be a hard link to the original
    with open(path, "w", encoding="utf-8") as file:
        file.write(release.stamp(number))
    return path


class BuildPy(build_py):
    """Modules and package data, and the release stamp."""

    def run(self) -> None:
        """As the base class does, and the stamp."""
        super().run()
        if not self.editable_mode:
            write_stamp(os.path.join(self.build_lib, "terok_host", "runtime"), self.distribution.get_version())


class Sdist(sdist):
    """The source archive, which has no git: it takes the stamp along."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """As the base class does, and the stamp."""
        super().make_release_tree(base_dir, files)
        write_stamp(os.path.join(base_dir, "runtime"), self.distribution.get_version())


class InstallPages(Command):
    """Generates the pages and installs them below the prefix; the wheel keeps them as its data files."""

    user_options = [("install-dir=", "d", "the prefix"), ("root=", None, "an alternate root directory")]

    def initialize_options(self) -> None:
        """As `install` asks."""
        self.install_dir: str | None = None
        self.root: str | None = None
        self.outfiles: list[str] = []

    def finalize_options(self) -> None:
        """As `install` asks."""
        self.set_undefined_options("install", ("install_data", "install_dir"), ("root", "root"))

    def run(self) -> None:
        """Generate and install."""
        assert self.install_dir is not None
        importable()
        from terok_host.runtime import pages

        for directory, files in pages.install_tree(
            os.path.join(ROOT, "build", "pages"), self.distribution.get_version()
        ).items():
            target = os.path.join(self.install_dir, directory)
            self.mkpath(target)
            self.outfiles += [self.copy_file(path, target)[0] for path in files]

    def get_inputs(self) -> list[str]:
        """Nothing that exists before."""
        return []

    def get_outputs(self) -> list[str]:
        """What was installed."""
        return self.outfiles


# `install` runs install_data only when there are data files; which ones, the command above says
setup(cmdclass={"build_py": BuildPy, "sdist": Sdist, "install_data": InstallPages}, data_files=[("share", [])])
