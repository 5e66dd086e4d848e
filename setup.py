"""Adds the completion scripts and man pages, made from the table of verbs, to what pyproject.toml describes."""

from __future__ import annotations

import os
import sys
import types

from setuptools import Command, setup

ROOT = os.path.dirname(os.path.abspath(__file__))


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
        package = types.ModuleType("terok_host")
        package.__path__ = [ROOT]
        sys.modules["terok_host"] = package
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
setup(cmdclass={"install_data": InstallPages}, data_files=[("share", [])])
