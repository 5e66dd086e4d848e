"""The container's firewall: loading it, reading it back, restoring it after a foreign change, and its resolver."""
