"""Upstream connections through the company's HTTP proxy (`network.upstream_proxy`)."""
