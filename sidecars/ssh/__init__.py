"""The signer: an SSH agent whose keys stay on the host."""
