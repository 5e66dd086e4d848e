"""Starts one sidecar: `python -I -S boot.py NAME SIDECAR_JSON`, listening sockets at descriptors 3 and up.

-I and -S keep the environment, the working directory and .pth files out of a process that handles credentials;
this file puts the package and its dependencies on the path by itself.
"""

from __future__ import annotations

import os
import sys
import types


def _find_packages() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    floors = os.path.dirname(here)
    package = types.ModuleType("terok_host")
    package.__path__ = [floors]
    sys.modules["terok_host"] = package
    prefix = os.path.dirname(os.path.dirname(os.path.abspath(sys.executable)))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if os.path.exists(os.path.join(prefix, "pyvenv.cfg")):
        sys.path.append(os.path.join(prefix, "lib", version, "site-packages"))
    elif os.path.basename(os.path.dirname(floors)).endswith("-packages"):
        sys.path.append(os.path.dirname(floors))
    else:
        import site

        site.main()


def main() -> int:
    """Load `sidecars/<name>/main.py` and run its `main(context)`."""
    _find_packages()
    from importlib import import_module

    from terok_host.sidecars.kit.context import Context

    context = Context.receive(sys.argv[1:])
    module = import_module(f"terok_host.sidecars.{context.name}.main")
    return int(module.main(context))


if __name__ == "__main__":
    sys.exit(main())
