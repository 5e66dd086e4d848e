"""The house rules, kept by reading the sources: floors, who may spawn, who may speak ctypes, sizes, packages."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from terok_host.runtime.verbs import BY_PATH

ROOT = Path(__file__).parents[2]
FLOORS = ("supervisor", "sidecars", "hookbin", "runtime", "selinux")
SHARED_SIDECARS = ("sidecars.kit", "sidecars.store", "sidecars.roster", "sidecars.login")
NEIGHBOURS = {"sidecars.airlock": ("sidecars.shield",)}
"""Services that may import another one: the relay carries out the shield's policy."""
LINES_MAX = 450
MODULES_MAX = 16
WAREHOUSES: dict[str, int] = {}
"""Folders that still have more modules than a room should; to be emptied."""

SPAWNING = frozenset({"subprocess", "multiprocessing", "concurrent.futures.process", "pty", "_posixsubprocess"})
SPAWNING_CALLS = re.compile(r"^(fork|forkpty|system|popen|posix_spawnp?|exec[lv]p?e?|spawn[lv]p?e?|startfile)$")
HEAVY_FOR_HOOKS = frozenset(
    {"asyncio", "dataclasses", "pathlib", "subprocess", "typing", "inspect", "socket", "ssl", "logging", "argparse"}
    | {"tempfile", "shutil", "sqlite3", "threading", "concurrent", "urllib", "http", "email", "re", "collections.abc"}
)


def sources() -> dict[str, Path]:
    """Every module of the house, by its name below terok_host."""
    found: dict[str, Path] = {}
    for floor in FLOORS:
        for path in sorted((ROOT / floor).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = sources()


def is_type_checking(node: ast.If) -> bool:
    return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(tree: ast.Module, module: str, *, package: bool, lazy: bool = True) -> Iterator[str]:
    """What a module imports, with ours as `floor.module`.

    Args:
        tree: the parsed module.
        module: its name, as in `MODULES`.
        package: it is an `__init__.py`.
        lazy: also what functions import, and what only type checkers see; otherwise what importing the module costs.
    """
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("terok_host.") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = module.split(".") if package else module.split(".")[:-1]
                base = ".".join([*here[: len(here) - node.level + 1], *([node.module] if node.module else [])])
            base = base.removeprefix("terok_host.")
            for alias in node.names:
                whole = f"{base}.{alias.name}" if base else alias.name
                yield whole if whole in MODULES else base
        elif isinstance(node, ast.If) and is_type_checking(node) and not lazy:
            pending.extend(node.orelse)
        elif lazy or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            pending.extend(ast.iter_child_nodes(node))


ROOMS: dict[str, tuple[str, ...]] = {
    "supervisor.ground": (),
    "supervisor.container": ("supervisor.ground", "supervisor.schema"),
    "supervisor.wall": ("supervisor.ground", "supervisor.container", "supervisor.schema"),
    "sidecars.kit": (),
    "sidecars.store": ("sidecars.kit",),
    "sidecars.roster": ("sidecars.kit", "sidecars.store"),
    "sidecars.login": ("sidecars.kit", "sidecars.store", "sidecars.roster"),
    "runtime.kit": (),
    "runtime.host": ("runtime.kit",),
    "runtime.project": ("runtime.kit",),
    "runtime.launch": ("runtime.kit", "runtime.host", "runtime.project"),
    "runtime.vault": ("runtime.kit", "runtime.host"),
    "runtime.ssh": ("runtime.kit", "runtime.host"),
    "runtime.gate": ("runtime.kit", "runtime.host"),
    "runtime.shield": ("runtime.kit", "runtime.host"),
    "runtime.queue": ("runtime.kit", "runtime.shield", "runtime.gate", "runtime.ssh"),
    "runtime.top": ("runtime.kit", "runtime.queue", "runtime.care", "runtime.vault"),
}
"""What each room may import of its own floor besides itself. Rooms that are not here may import all of their floor."""

PROGRAMS: dict[str, frozenset[str]] = {
    "supervisor.service": frozenset({"sidecars.boot"}),
    "supervisor.names": frozenset({"sidecars.shield.refresh"}),
    "hookbin.stages": frozenset({"runtime.launch.annotated", "runtime.care.forget"}),
    "runtime.ssh.agent": frozenset({"sidecars.boot"}),
    "runtime.host.hooks": frozenset({"hookbin.entry"}),
    "runtime.host.modules": frozenset({"hookbin.finder"}),
    "runtime.care.doctor_checks": frozenset({"hookbin.entry", "sidecars.boot"}),
}
"""Programs that a module names by their path below the package, with `os.path.join(package_root(), ...)`.

Two of them are of a higher floor, each for a reason:
- a supervisor starts sidecars (`sidecars.boot`, `sidecars.shield.refresh`): to start them is what it is for;
- a hook has a container with annotations alone composed (`runtime.launch.annotated`) and its bundle deleted
  (`runtime.care.forget`): a separate process reads the configuration, the roster and the store, so that the hook
  itself stays free of them.
"""


def room(module: str) -> str:
    """The room that a module belongs to: `supervisor.ground.quick` -> `supervisor.ground`."""
    return ".".join(module.split(".")[:2])


def may_enter(module: str, target: str) -> bool:
    """The rooms: whether `module` may import `target` of the same floor."""
    if module.split(".")[0] != target.split(".")[0] or room(module) not in ROOMS:
        return True
    return room(target) in (room(module), *ROOMS[room(module)])


def programs(tree: ast.Module) -> set[str]:
    """Modules that are named by path: words that end in `.py`, joined as the floors and rooms that hold them."""
    named: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call | ast.Tuple):
            parts = node.args if isinstance(node, ast.Call) else node.elts
            words = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
            if len(words) > 1 and words[0] in FLOORS and words[-1].endswith(".py"):
                named.add(".".join(words).removesuffix(".py"))
    return named


def service(module: str) -> str:
    """The part of floor 2 that a module belongs to: `sidecars.vault.routes` → `sidecars.vault`."""
    return ".".join(module.split(".")[:2])


def may_import(module: str, target: str) -> bool:
    """The floors: whether `module` may import `target`, both as in `MODULES`."""
    floor, below = module.split(".")[0], target.split(".")[0]
    if below not in FLOORS or floor == below != "sidecars":
        return True
    if floor == "sidecars" and below == "sidecars":
        if module == "sidecars.boot":
            return service(target) in SHARED_SIDECARS
        return service(target) in (service(module), *SHARED_SIDECARS, *NEIGHBOURS.get(service(module), ()))
    allowed = {"supervisor": (), "sidecars": ("supervisor",), "hookbin": ("supervisor",)}
    return floor == "runtime" or below in allowed[floor]


def spawns(tree: ast.Module) -> list[str]:
    """What in a module starts a process or replaces this one."""
    found = [name for name in imports(tree, "x.y", package=False) if name in SPAWNING]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = node.attr
            if node.value.id in ("os", "posix") and SPAWNING_CALLS.match(name):
                found.append(f"{node.value.id}.{name}")
            if name.startswith("create_subprocess"):
                found.append(name)
        if isinstance(node, ast.ImportFrom) and node.module in ("os", "posix"):
            found.extend(alias.name for alias in node.names if SPAWNING_CALLS.match(alias.name))
    return found


def parse(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(), str(MODULES[module]))


def imports_of(module: str, *, lazy: bool = True) -> set[str]:
    return set(imports(parse(module), module, package=MODULES[module].name == "__init__.py", lazy=lazy))


def test_floors() -> None:
    wrong = [
        f"{module} imports {target}"
        for module in MODULES
        for target in imports_of(module)
        if not may_import(module, target)
    ]
    assert not wrong


def test_rooms() -> None:
    wrong = [
        f"{module} imports {target}"
        for module in MODULES
        for target in imports_of(module)
        if target in MODULES and not may_enter(module, target)
    ]
    assert not wrong


def test_the_rule_of_the_rooms() -> None:
    assert not may_enter("supervisor.ground.quick", "supervisor.schema")
    assert not may_enter("runtime.kit.env", "runtime.launch.prepare")
    assert not may_enter("sidecars.kit.stream", "sidecars.store.store")
    assert may_enter("supervisor.wall.firewall", "supervisor.ground.quick")
    assert may_enter("runtime.care.status", "runtime.launch.prepare")


def test_rooms_exist() -> None:
    assert all(name in MODULES for name in ROOMS)


def test_no_room_is_a_warehouse() -> None:
    sizes = {
        str(folder.relative_to(ROOT)): len([path for path in folder.glob("*.py") if path.name != "__init__.py"])
        for folder in {path.parent for path in MODULES.values()}
    }
    assert {folder: size for folder, size in sizes.items() if size > MODULES_MAX} == WAREHOUSES


def test_programs_started_by_path_are_known() -> None:
    assert {module: frozenset(named) for module in MODULES if (named := programs(parse(module)))} == PROGRAMS
    assert all(name in MODULES for named in PROGRAMS.values() for name in named)


def circles(modules: list[str]) -> set[str]:
    """Modules in a circle of imports and those that lead to one; what functions and type checkers import counts."""
    below = {module: {name for name in imports_of(module) if name in modules and name != module} for module in modules}
    while ends := {module for module, targets in below.items() if not targets & below.keys()}:
        below = {module: targets for module, targets in below.items() if module not in ends}
    return set(below)


def test_no_circle_of_imports() -> None:
    assert not circles(list(MODULES))


@pytest.mark.parametrize(
    ("module", "target", "fine"),
    [
        ("supervisor.main", "supervisor.kernel", True),
        ("supervisor.main", "sidecars.kit", False),
        ("supervisor.main", "runtime.cli", False),
        ("sidecars.vault.main", "sidecars.kit.context", True),
        ("sidecars.vault.main", "sidecars.store.store", True),
        ("sidecars.vault.main", "sidecars.vault.http", True),
        ("sidecars.vault.main", "sidecars.ssh.main", False),
        ("sidecars.kit.context", "sidecars.vault.main", False),
        ("sidecars.kit.context", "supervisor.schema", True),
        ("sidecars.boot", "sidecars.vault.main", False),
        ("hookbin.hook", "sidecars.kit.audit", False),
        ("hookbin.hook", "supervisor.process", True),
        ("runtime.launch", "sidecars.vault.settings", True),
        ("runtime.launch", "json", True),
    ],
)
def test_the_rule_of_the_floors(module: str, target: str, fine: bool) -> None:
    assert may_import(module, target) is fine


def test_relative_and_absolute_imports_are_read_alike() -> None:
    tree = ast.parse(
        "from ..supervisor.ground import kernel\nimport terok_host.runtime.cli\nfrom . import nothing\nimport os"
    )
    assert set(imports(tree, "hookbin.x", package=False)) == {
        "supervisor.ground.kernel",
        "runtime.cli",
        "hookbin",
        "os",
    }


def shared_wrongly(module: str, path: Path) -> list[str]:
    """What a program imports from another folder of tests than the two that are shared."""
    imported = imports(ast.parse(path.read_text()), module, package=False)
    open_to_it = ("lab", "standins", "chaos" if path.parent.name == "chaos" else "")
    return [name for name in imported if name.startswith("tests.") and name.split(".")[1] not in open_to_it]


def test_what_is_shared_lies_in_lab_and_standins() -> None:
    """tests/lab (where and in what tests run) and tests/standins (whom they talk to) serve tests, bench and demo."""
    wrong = {
        str(path.relative_to(ROOT)): names
        for folder in ("tests", "bench", "demo")
        for path in (ROOT / folder).rglob("*.py")
        if (names := shared_wrongly("x", path))
    }
    assert wrong == {}


def test_one_module_spawns() -> None:
    assert {module for module in MODULES if spawns(parse(module))} == {"supervisor.ground.process"}


@pytest.mark.parametrize(
    "code",
    [
        "import subprocess",
        "from multiprocessing import Process",
        "import os\nos.fork()",
        "import os\nos.execve('/x', [], {})",
        "import os\nos.posix_spawn('/x', [], {})",
        "from os import system",
        "import asyncio\nasyncio.create_subprocess_exec('x')",
    ],
)
def test_spawning_is_seen(code: str) -> None:
    assert spawns(ast.parse(code))


WORDS = "|".join(sorted({word for path in BY_PATH for word in path.split()}))
HINT = re.compile(
    rf"(?<!this )(?:terok(?:-[a-z]+)? (?:{WORDS}|x)|podman (?:start|stop|restart|rm))"
    r"(?: [a-z-]+)* (?:[A-Za-z0-9=.|-]+ )*(?:--[a-z-]+=)?$"
)
"""A text that ends inside a command of terok, by its verb, or of Podman."""


def unquoted_hints(tree: ast.Module) -> list[int]:
    """Lines of f-strings in which a word of a command is not quoted for the shell people paste it into."""
    lines = []
    for text in (node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)):
        inside = False
        for part in text.values:
            if isinstance(part, ast.Constant):
                # a command goes on over its words, and ends where a sentence does
                last = str(part.value) if not inside else "terok x" + str(part.value)
                inside = HINT.search(last) is not None
            elif inside and isinstance(part, ast.FormattedValue):
                call = part.value.func if isinstance(part.value, ast.Call) else None
                if not (
                    isinstance(call, ast.Attribute) and isinstance(call.value, ast.Name) and call.value.id == "paste"
                ):
                    lines.append(text.lineno)
    return lines


def test_commands_that_people_paste_are_quoted() -> None:
    """What the container, the image, the forge or the upstream chose may stand in what these floors print."""
    assert {name: found for name in MODULES if (found := unquoted_hints(parse(name)))} == {}


@pytest.mark.parametrize(
    ("code", "seen"),
    [
        ('f"terok gate list {scope}"', True),
        ('f"run `terok shield allow {name} {target}` again"', True),
        ('f"terok vault add {paste.quoted(scope)} {name}"', True),
        ('f"terok ssh link --scope {scope}"', True),
        ('f"podman start {name}"', True),
        ('f"{name} runs; podman rm --force {name} ends it"', True),
        ('f"terok ps {name}"', True),
        ('f"terok cannot make {kind}"', False),
        ('f"podman {verb} failed"', False),
        ('f"podman stop {paste.quoted(name)}"', False),
        ('f"terok gate list {paste.quoted(scope)} --json"', False),
        ('f"terok vault: {error}"', False),
        ('paste.command("terok", "heal", name)', False),
    ],
)
def test_unquoted_hints_are_seen(code: str, seen: bool) -> None:
    assert bool(unquoted_hints(ast.parse(code))) is seen


def test_one_module_speaks_ctypes() -> None:
    users = {
        module for module in MODULES if {"ctypes", "_ctypes", "cffi"} & {i.split(".")[0] for i in imports_of(module)}
    }
    assert users == {"supervisor.ground.kernel"}


def test_importing_a_hook_imports_nothing_heavy() -> None:
    reached: set[str] = set()
    pending = [module for module in MODULES if module.startswith("hookbin")]
    while pending:
        module = pending.pop()
        if module in MODULES and module not in reached:
            reached.add(module)
            pending += imports_of(module, lazy=False)
            pending += [".".join(module.split(".")[:depth]) for depth in range(1, module.count(".") + 1)]
    heavy = {module: found for module in sorted(reached) if (found := imports_of(module, lazy=False) & HEAVY_FOR_HOOKS)}
    assert not heavy


def test_every_package_is_listed_and_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    setuptools = project["tool"]["setuptools"]
    packages = {
        "terok_host." + ".".join(path.parent.relative_to(ROOT).parts)
        for floor in FLOORS
        for path in (ROOT / floor).rglob("__init__.py")
    }
    # selinux/ holds no Python: an __init__.py there would hide libselinux's module from a process started in the root
    assert set(setuptools["packages"]) == packages | {"terok_host.selinux"}
    assert setuptools["package-dir"] == {f"terok_host.{floor}": floor for floor in FLOORS}
    assert not list((ROOT / "selinux").rglob("*.py"))


def test_data_files_are_packaged() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packaged: set[Path] = set()
    for package, patterns in setuptools["package-data"].items():
        names = setuptools["packages"] if package == "*" else [package]
        for name in names:
            folder = ROOT.joinpath(*name.split(".")[1:])
            for pattern in patterns:
                packaged |= set(folder.glob(pattern))
    data = {
        path
        for floor in FLOORS
        for path in (ROOT / floor).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc", ".md") and "__pycache__" not in path.parts
    }
    assert {str(path.relative_to(ROOT)) for path in data - packaged} == set()


def test_files_stay_readable_in_one_sitting() -> None:
    files = [*MODULES.values(), *(ROOT / "tests").rglob("*.py"), *(ROOT / "bench").rglob("*.py")]
    long = {
        str(path.relative_to(ROOT)): lines
        for path in files
        if (lines := len(path.read_text().splitlines())) > LINES_MAX
    }
    assert not long


def test_every_module_says_what_it_is() -> None:
    silent = [
        module for module, path in MODULES.items() if path.read_text().strip() and not ast.get_docstring(parse(module))
    ]
    assert not silent


def test_silenced_checkers_have_a_reason() -> None:
    mark = re.compile(r"#\s*(noqa|type:\s*ignore)(?P<codes>[:\[][A-Za-z0-9, \-\]]*?)?(?P<rest>\s+(-|#)\s*\S.*)?$")
    silent = [
        f"{module}:{number}: {line.strip()}"
        for module, path in MODULES.items()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (found := mark.search(line)) and not found["rest"]
    ]
    assert not silent
