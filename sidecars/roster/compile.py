"""Roster files in, catalogue out. All providers are compiled before the agents, which refer to them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from . import agent_nodes, nodes
from . import providers as provider_nodes
from .model import Agent, Catalog, Provider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    T = TypeVar("T")


def compile_files(paths: Iterable[str]) -> Catalog:
    """The catalogue, without its sources.

    Args:
        paths: roster files; a later one replaces what an earlier one defined, but not within one directory.

    Raises:
        RosterError: a file is wrong.
    """
    documents = [nodes.read(path).fields(("providers", "agents")) for path in paths]
    providers: dict[str, Provider] = {}
    agents: dict[str, Agent] = {}
    _compile("providers", documents, providers, lambda node: provider_nodes.provider(node, providers))
    _compile("agents", documents, agents, lambda node: agent_nodes.agent(node, providers))
    return Catalog(providers, agents, provider_nodes.token_headers(providers))


def _compile(
    key: str, documents: list[dict[str, nodes.Node]], into: dict[str, T], read: Callable[[nodes.Node], T]
) -> None:
    defined: dict[str, nodes.Node] = {}
    for document in documents:
        if key not in document:
            continue
        for name, node in document[key].members().items():
            _check_name(node, name, defined.get(name))
            into[name] = read(node)
            defined[name] = node


def _check_name(node: nodes.Node, name: str, before: nodes.Node | None) -> None:
    if not re.fullmatch(provider_nodes.NAME, name) or name == "gate":
        node.fail("a name has letters a-z, digits and dashes, begins with a letter, and is not 'gate'")
    if before is not None and _directory(before.file) == _directory(node.file):
        node.fail(f"the name {name} is taken by {before.place}")


def _directory(path: str) -> str:
    return path.rpartition("/")[0]
