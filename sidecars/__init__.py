"""Floor 2: one folder a service. Each runs in its own process, confined to what it needs."""
