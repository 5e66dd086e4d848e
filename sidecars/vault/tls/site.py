"""A brokered host as connections and requests refer to it, and the hosts of one container."""

from __future__ import annotations

from collections.abc import Iterable

from ...roster import brokered
from ..heads import Heads


class Site:
    """One brokered host and port.

    Attributes:
        host, port: what the container connects to.
        names: what a Host header may say.
        heads: the plans of requests to it: the same head means something else at another host.
    """

    __slots__ = ("host", "port", "names", "heads")

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        whole = f"{host}:{port}".encode("ascii")
        self.names = frozenset((whole, host.encode("ascii"))) if port == brokered.HTTPS_PORT else frozenset((whole,))
        self.heads = Heads()

    def __repr__(self) -> str:
        return f"<Site {self.host}:{self.port}>"


class Sites:
    """The brokered hosts of one container.

    Args:
        hosts: each as `host:port`; raises ValueError for something else.
    """

    def __init__(self, hosts: Iterable[str]) -> None:
        self._sites = {place: Site(*place) for place in map(brokered.parse, hosts)}

    def __repr__(self) -> str:
        return f"<Sites {list(self._sites.values())!r}>"

    def __bool__(self) -> bool:
        return bool(self._sites)

    def find(self, host: str, port: int) -> Site | None:
        """The brokered host of this name and port; None when it is not brokered."""
        return self._sites.get((host, port))

    def forget(self) -> None:
        """Tokens, routes or credentials have changed: no plan counts any more."""
        for site in self._sites.values():
            site.heads.forget()
