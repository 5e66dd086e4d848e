"""Starts one sidecar: `python -I -S boot.py NAME SIDECAR_JSON`, listening sockets at descriptors 3 and up.

See `supervisor/ground/bootstrap.py` for why it finds its own packages.
"""

from __future__ import annotations

import os
import sys
import types


def main() -> int:
    """Load the `main.py` of the sidecar's room and run its `main(context)`."""
    package = types.ModuleType("terok_host")
    package.__path__ = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
    sys.modules["terok_host"] = package
    from importlib import import_module

    from terok_host.supervisor.ground.bootstrap import find_packages

    find_packages()
    from terok_host.sidecars.kit.context import Context
    from terok_host.supervisor.schema import SIDECARS

    context = Context.receive(sys.argv[1:])
    module = import_module(f"terok_host.sidecars.{SIDECARS[context.name]}.main")
    return int(module.main(context))


if __name__ == "__main__":
    sys.exit(main())
