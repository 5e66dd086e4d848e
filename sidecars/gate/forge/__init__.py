"""The gate towards the forge: addresses, credentials, host keys, synchronizing and landing."""
