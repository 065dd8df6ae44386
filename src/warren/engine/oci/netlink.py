"""The part of pyroute2 that is used here, with types: the library has none for its calls."""

from types import TracebackType
from typing import Protocol, cast

import pyroute2  # pyright: ignore[reportMissingTypeStubs]
from pyroute2.netlink.exceptions import NetlinkError  # pyright: ignore[reportMissingTypeStubs]

__all__ = ["Connections", "IPRoute", "NFCTSocket", "NetlinkError", "Routes"]


class Routes(Protocol):
    """Each call is one netlink request, answered before it returns. Raises NetlinkError."""

    def __enter__(self) -> "Routes": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def link(self, command: str, **values: object) -> object: ...

    def link_lookup(self, *, ifname: str) -> list[int]: ...

    def addr(self, command: str, **values: object) -> object: ...

    def route(self, command: str, **values: object) -> object: ...

    def neigh(self, command: str, **values: object) -> object: ...

    def fdb(self, command: str, **values: object) -> object: ...

    def brport(self, command: str, **values: object) -> object: ...


def IPRoute() -> Routes:  # the name that readers of pyroute2 know
    """A netlink socket in the calling thread's network namespace."""
    return cast(Routes, pyroute2.IPRoute())


class Connections(Protocol):
    """The kernel's table of connections."""

    def __enter__(self) -> "Connections": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def flush(self, *, mark: int, mark_mask: int) -> object: ...


def NFCTSocket() -> Connections:  # as above
    """A conntrack socket in the calling thread's network namespace."""
    return cast(Connections, pyroute2.NFCTSocket())
