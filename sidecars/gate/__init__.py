"""The git gate: a token-authenticated mirror."""
