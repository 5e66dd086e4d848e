"""The packet audit: reads NFLOG and writes what was blocked."""
