"""The sealed store: credentials, SSH keys and token hashes, under one data key."""
