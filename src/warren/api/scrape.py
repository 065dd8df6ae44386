"""Handler of `GET /metrics`, the numbers for Prometheus."""

from ipaddress import ip_address

from fastapi import Request, Response

from warren.api.auth import caller
from warren.api.context import context

_INDIRECT = ("x-forwarded-for", "forwarded", "origin")
"""Behind a proxy (the gateway is one) everybody may look local, and a web page may ask through a local browser."""


async def metrics(request: Request) -> Response:
    """Not in a thread: the gauges read what the loop changes. Raises Unauthenticated."""
    await require_local_or_key(request)
    meters = context(request).meters
    return Response(meters.render(), headers={"Content-Type": meters.content_type, "Cache-Control": "no-store"})


async def require_local_or_key(request: Request) -> None:
    """Raises Unauthenticated."""
    if not _is_local(request):
        await caller(request)


def _is_local(request: Request) -> bool:
    if request.client is None or any(name in request.headers for name in _INDIRECT):
        return False
    try:
        return ip_address(request.client.host).is_loopback
    except ValueError:
        return False
