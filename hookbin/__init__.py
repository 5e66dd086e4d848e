"""Floor 3: the two OCI hook entry points. Standard library only; milliseconds count."""
