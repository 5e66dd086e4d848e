"""The gate towards containers: HTTP, git's protocol, pushes."""
