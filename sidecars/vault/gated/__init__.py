"""A repository that has a gate: the vault's own routes to its forge do not go around it."""
