"""`terok mcp`: MCP servers in containers of their own, for the agents of a scope."""
