"""The program that the OCI hooks run: `python -I -S entry.py createRuntime|poststop DIRECTORIES`, the state on stdin.

It finds its package by its own place on disk, so nothing depends on site-packages, .pth files or the environment
(crun 0.17 gives hooks the container's environment, which is hostile). Python compiles a script at each start, so this
one is short.
"""

import gc
import marshal
import os
import sys


def one_file(path: str) -> None:
    """Import from the file of all modules, if it is the operator's own; see runtime/host/modules.py."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    info, head = os.fstat(fd), os.read(fd, 16)
    if info.st_uid == os.geteuid() and not info.st_mode & 0o022 and head[:8] == sys.hexversion.to_bytes(8, "little"):
        length = int.from_bytes(head[8:], "little")
        finder, table = marshal.loads(os.read(fd, length))
        space = {"__name__": "finder"}
        exec(finder, space)
        space["install"](fd, 16 + length, table)  # type: ignore[operator]  # the function of finder.py


def main() -> int:
    """Make `terok_host` importable and run the stage that argv names."""
    gc.disable()  # nothing here lives long enough to be collected; a supervisor turns it on again
    package = sys.modules["terok_host"] = type(sys)("terok_host")
    package.__path__ = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
    try:
        one_file(sys.argv[2] + "/hooks.d/modules")
    except (OSError, IndexError, ValueError, EOFError, TypeError):
        pass  # not written yet, or damaged: the sources are there
    from terok_host.hookbin.stages import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # nothing is left to finalise, and the interpreter's own shutdown costs milliseconds
