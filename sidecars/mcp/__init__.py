"""The tools of MCP servers, which run in containers of their own, for the agents of a scope."""
