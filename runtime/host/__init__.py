"""The host's Podman: its version and flags, the OCI hooks, AppArmor, SELinux."""
