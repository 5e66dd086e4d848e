"""The OCI container: its state, its origin, its mounts, its SELinux label."""
