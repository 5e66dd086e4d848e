"""The container's audit log, as sidecars use it."""

from ...supervisor.ground.audit import Audit

__all__ = ["Audit"]
