"""The airlock behind the company's HTTP proxy: who asks the proxy for a container's connections."""
