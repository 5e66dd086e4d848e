"""Floor 4: Podman, the operator, configuration: launch, setup, doctor, the command line."""
