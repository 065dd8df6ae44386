"""Limits on request bodies, also on chunked ones that announce no length."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from warren.model import limits

_BY_NOUN = {"secrets": limits.SECRET_BODY_BYTES}
"""Other limits than the general one, by the first part of the path."""


class BodyLimit:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit, seen = _limit(scope), 0
        if limit is None:
            await self._app(scope, receive, send)
            return

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise HTTPException(413, f"cannot take a body of more than {limit} bytes; send less")
            return message

        await self._app(scope, counted, send)


def _limit(scope: Scope) -> int | None:
    """Uploads are PUT: `/templates/…/files/…`, and all below `/volumecontent`."""
    parts = scope.get("path", "").split("/")
    noun = parts[1] if len(parts) > 1 else ""
    if noun == "templates" and scope.get("method") == "PUT" and parts[-2] == "files":
        return limits.UPLOAD_MAX_BYTES
    if noun == "volumecontent" and scope.get("method") == "PUT":
        return None  # a file of any size, which nobody holds in memory
    return _BY_NOUN.get(noun, limits.MAX_BODY_BYTES)
