"""TLS for both roles: hellos read without it, the layer itself."""
