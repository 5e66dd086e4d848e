"""The airlock's relay: every connection of a container, by the name that it shows, to an address that was checked."""
