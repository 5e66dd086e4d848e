"""Connections from the vault to its upstreams."""
