"""HTTPS at the providers' own hosts: the container's authority, and what makes its clients trust it."""
