"""`terok config`: show, get and set keys of `config.yml`."""

from __future__ import annotations

import argparse
import os

import yaml

from ...supervisor.ground.errors import Exit, TerokError
from ..kit import config_file
from ..kit.config import Config, keys, kinds, load
from ..kit.config_edit import change, flow
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
        changed = "" if values[name] == defaults[name] else "  # default: " + flow(defaults[name])
        lines.append(f"  {key}: {flow(values[name])}{changed}")
    if not args.defaults:
        env.note(
            f"# {env.layout.config_file}" + ("" if os.path.exists(env.layout.config_file) else " (does not exist)")
        )
    env.out.emit(values, "\n".join(lines))
    return Exit.OK


@verb(KEY, examples=("terok config get services.mode",))
def run_get(args: argparse.Namespace, env: Env) -> int:
    """Print the value of one key."""
    name = known(args.key)
    value = values_of(env.config)[name]
    env.out.emit(value, flow(value))
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
    change(env.layout, name, value)
    load(env.environ)
    env.out.emit({name: value}, f"{name}: {flow(value)}")
    return Exit.OK
