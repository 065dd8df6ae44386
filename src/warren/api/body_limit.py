"""A limit on request bodies, also on chunked ones that announce no length."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from warren.model import limits


class BodyLimit:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limits.MAX_BODY_BYTES:
                raise HTTPException(413, f"cannot take a body of more than {limits.MAX_BODY_BYTES} bytes; send less")
            return message

        await self._app(scope, counted, send)
