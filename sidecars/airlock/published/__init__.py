"""Published ports of a container in the airlock: connections from the host's side into the container's network."""
