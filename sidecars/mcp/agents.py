"""Tells agents about the servers of their scope, in the configuration file that each reads. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from ...supervisor.ground.layout import MCP_PORT
from ..roster.model import AgentFile

BASE = f"http://127.0.0.1:{MCP_PORT}/mcp/"
"""A server's address in the container is this and its name."""

Entry = Callable[[str], dict[str, object]]


def with_servers(files: Mapping[str, AgentFile], agents: Sequence[str], servers: Sequence[str]) -> dict[str, AgentFile]:
    """The agents' files by their path, with the servers in those of the agents that know them.

    Args:
        files: what the roster wants below the home directory.
        agents: the container's.
        servers: names.
    """
    told = dict(files)
    for agent in agents:
        if servers and agent in _JSON:
            path, key, entry = _JSON[agent]
            old = told.get(path, AgentFile(path, "{}\n", 0o600))
            document = json.loads(old.content)
            document[key] = {**document.get(key, {}), **{name: entry(BASE + name) for name in servers}}
            told[path] = old._replace(content=json.dumps(document, indent=2) + "\n")
        elif servers and agent in _TOML:
            path = _TOML[agent]
            old = told.get(path, AgentFile(path, "", 0o600))
            # a name is letters, digits and dashes: a bare key (TOML 1.0, "Keys")
            tables = "".join(f'\n[mcp_servers.{name}]\nurl = "{BASE}{name}"\n' for name in servers)
            told[path] = old._replace(content=old.content + tables)
    return told


_JSON: dict[str, tuple[str, str, Entry]] = {
    "claude": (".claude.json", "mcpServers", lambda url: {"type": "http", "url": url}),
    "gemini": (".gemini/settings.json", "mcpServers", lambda url: {"httpUrl": url}),
    "opencode": (
        ".config/opencode/opencode.json",
        "mcp",
        lambda url: {"type": "remote", "url": url, "enabled": True},
    ),
}
_TOML = {"codex": ".codex/config.toml"}
