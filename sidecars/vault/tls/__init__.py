"""TLS towards the container: its authority, its leaves, and connections to brokered hosts."""
