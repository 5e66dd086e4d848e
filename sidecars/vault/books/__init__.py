"""What the vault writes down: audit, usage, limits."""
