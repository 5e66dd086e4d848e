"""Providers and agents: YAML in, compiled routes out."""
