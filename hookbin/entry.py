"""The program that the OCI hooks run: `python -I -S entry.py createRuntime|poststop`, the container's state on stdin.

It finds its package by its own place on disk, so nothing depends on site-packages, .pth files or the environment
(crun 0.17 gives hooks the container's environment, which is hostile).
"""

import gc
import os
import sys
import types


def main() -> int:
    """Make `terok_host` importable and run the stage that argv names."""
    gc.disable()  # nothing here lives long enough to be collected; a supervisor turns it on again
    here = os.path.dirname(os.path.abspath(__file__))
    package = types.ModuleType("terok_host")
    package.__path__ = [os.path.dirname(here)]
    sys.modules["terok_host"] = package
    from terok_host.hookbin.stages import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # nothing is left to finalise, and the interpreter's own shutdown costs milliseconds
