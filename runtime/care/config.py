"""`terok config`: show, get and set keys of `config.yml`."""

from __future__ import annotations

import argparse
import json
import os

import yaml

from ...supervisor.ground.errors import Exit, TerokError
from ..kit import config_file, files
from ..kit.config import Config, keys, kinds, load
from ..kit.config_edit import put
from ..kit.env import Env
from ..kit.verb import argument, switch, verb

KEY = argument("key", metavar="KEY", help="for example services.mode", values="config-keys")


def values_of(cfg: Config) -> dict[str, object]:
    """Every key's value, as plain data."""
    values = {}
    for name in keys():
        section, _, field = name.partition(".")
        value = getattr(getattr(cfg, section), field)
        values[name] = list(value) if isinstance(value, tuple) else value
    return values


@verb(switch("--defaults", "print the documented defaults instead"))
def run_show(args: argparse.Namespace, env: Env) -> int:
    """Print every key with its value, as a configuration file that can be used as it is."""
    defaults = values_of(Config(env.layout))
    values = defaults if args.defaults else values_of(env.config)
    lines: list[str] = []
    section = ""
    for name, field in keys().items():
        here, _, key = name.partition(".")
        if here != section:
            lines += ([""] if lines else []) + [f"{here}:"]
            section = here
        if args.defaults:
            lines.append(f"  # {field.metadata['doc']} ({field.metadata['kind']})")
        changed = "" if values[name] == defaults[name] else "  # default: " + _yaml(defaults[name])
        lines.append(f"  {key}: {_yaml(values[name])}{changed}")
    if not args.defaults:
        env.note(
            f"# {env.layout.config_file}" + ("" if os.path.exists(env.layout.config_file) else " (does not exist)")
        )
    env.out.emit(values, "\n".join(lines))
    return Exit.OK


def _yaml(value: object) -> str:
    """One value in YAML's flow style; JSON is a subset of it, and words need no quotes where YAML reads them back."""
    if isinstance(value, str) and yaml.safe_load(value) == value:
        return value
    return json.dumps(value)


@verb(KEY, examples=("terok config get services.mode",))
def run_get(args: argparse.Namespace, env: Env) -> int:
    """Print the value of one key."""
    name = known(args.key)
    value = values_of(env.config)[name]
    env.out.emit(value, _yaml(value))
    return Exit.OK


def known(name: str) -> str:
    """`name` when it is a key; raises TerokError (USAGE) with the nearest one otherwise."""
    if name not in keys():
        fix = config_file.nearest(name, list(keys()))
        raise TerokError(f"There is no configuration key {name[:60]!r}.", fix=fix, code=Exit.USAGE)
    return name


@verb(
    KEY,
    argument("value", metavar="VALUE", help="in YAML: a word, a number, true, null, [a, b]"),
    examples=("terok config set services.mode tcp",),
)
def run_set(args: argparse.Namespace, env: Env) -> int:
    """Change one key in config.yml. The new file is checked as a whole before it replaces the old one."""
    name = known(args.key)
    try:
        value = yaml.safe_load(args.value)
        config_file.check(kinds()[name], value)
    except yaml.YAMLError as error:
        raise TerokError(f"The value for {name} is not YAML.", code=Exit.USAGE) from error
    except ValueError as error:
        raise TerokError(f"{name} must be {error}.", code=Exit.USAGE) from error
    path = env.layout.config_file
    try:
        with open(path, encoding="utf-8") as file:
            before = file.read()
    except FileNotFoundError:
        before = ""
    old = config_file.parse(before, path, kinds())
    after = put(before, name, json.dumps(value) if not isinstance(value, str) else _yaml(value))
    try:
        new = config_file.parse(after, path, kinds())
    except TerokError:
        new = {}
    wanted = {**old, name: config_file.check(kinds()[name], value)}
    if new != wanted:
        raise TerokError(f"{path} cannot be edited safely.", fix=f"set {name} in this file yourself")
    os.makedirs(env.layout.config, mode=0o700, exist_ok=True)
    files.write(os.path.realpath(path), after, sync=True)
    load(env.environ)
    env.out.emit({name: value}, f"{name}: {_yaml(value)}")
    return Exit.OK
