"""Sidecars of two processes: a front that reads hostile bytes, and a keeper that may do more and reads none of them."""
