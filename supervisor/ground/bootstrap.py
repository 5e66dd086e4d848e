"""Puts the dependencies on the path of a program that was started with -I -S by its place on disk.

-I and -S keep the environment, the working directory and .pth files out of processes that handle credentials.
The program itself makes the package `terok_host` importable first, which takes three lines and cannot be imported:

    package = types.ModuleType("terok_host")
    package.__path__ = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
    sys.modules["terok_host"] = package
"""

from __future__ import annotations

import os
import sys

from .layout import package_root


def find_packages() -> None:
    """Append the site-packages directory of this interpreter's virtual environment, or of the installation."""
    prefix = os.path.dirname(os.path.dirname(os.path.abspath(sys.executable)))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    around = os.path.dirname(package_root())
    if os.path.exists(os.path.join(prefix, "pyvenv.cfg")):
        sys.path.append(os.path.join(prefix, "lib", version, "site-packages"))
    elif os.path.basename(around).endswith("-packages"):
        sys.path.append(around)
    else:
        import site

        site.main()
