"""The sidecar that reads logged packets and the resolver's queries into the container's audit log."""
