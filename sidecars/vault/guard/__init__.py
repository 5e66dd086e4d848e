"""The echo guard: no answer carries the real credential to the client."""
