"""What every sidecar needs: its context, its confinement, its audit log."""
