"""The verbs of the SSH signer."""
