"""The gateway's own answers: JSON for programs, HTML for people (wire contract 1.7 and 6.1.4)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

from aiohttp import web

TRAFFIC_HEADER = "e2b-traffic-access-token"
_NO_RETRY = frozenset({429, 502, 503, 504})
"""Clients repeat these three times unless told not to (wire contract 1.5)."""
_SAME_PAGE = frozenset({"cors", "no-cors", "same-origin", "websocket"})

_STYLE = "body{font:16px/1.5 system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1rem}code{color:#a40}"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{style}</style></head>
<body><h1>{title}</h1><p>{message}</p>{details}</body></html>
"""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer made here. `title` is the headline for people, `message` the text that programs match on."""

    status: int
    message: str
    title: str
    sandbox_id: str | None = None
    port: int | None = None
    path: str | None = None

    def fields(self) -> dict[str, str | int]:
        named = {"sandboxId": self.sandbox_id, "message": self.message, "port": self.port, "path": self.path}
        return {**{name: value for name, value in named.items() if value is not None}, "code": self.status}


def malformed(message: str, status: int = 400) -> Refusal:
    return Refusal(status, message, "Bad Request")


def not_found(sandbox_id: str) -> Refusal:
    return Refusal(502, "The sandbox was not found", "Sandbox Not Found", sandbox_id)


def away(sandbox_id: str, server: str) -> Refusal:
    message = f"The sandbox is on another server: {server}"
    return Refusal(502, message, "Sandbox On Another Server", sandbox_id)


def port_closed(sandbox_id: str, port: int) -> Refusal:
    message = "The sandbox is running but port is not open"
    return Refusal(502, message, f"There is no service running on port {port}", sandbox_id, port)


def bad_answer(sandbox_id: str, port: int) -> Refusal:
    message = "The sandbox closed the connection or its answer cannot be read"
    return Refusal(502, message, "Bad Answer", sandbox_id, port)


def silent(sandbox_id: str) -> Refusal:
    message = "The sandbox is running but its guest does not answer"
    return Refusal(502, message, "Sandbox Does Not Answer", sandbox_id)


def stays_asleep(sandbox_id: str, status: int, message: str) -> Refusal:
    return Refusal(status, message, "Sandbox Stays Paused", sandbox_id)


def token_missing(sandbox_id: str) -> Refusal:
    message = f"Missing traffic access token: this sandbox wants the header {TRAFFIC_HEADER}"
    return Refusal(403, message, "Missing Traffic Access Token", sandbox_id)


def token_wrong(sandbox_id: str) -> Refusal:
    message = f"Invalid traffic access token in the header {TRAFFIC_HEADER}"
    return Refusal(403, message, "Invalid Traffic Access Token", sandbox_id)


def too_many(sandbox_id: str) -> Refusal:
    message = "Too many connections to this sandbox; close some and try again"
    return Refusal(429, message, "Too Many Connections", sandbox_id)


def hidden(path: str) -> Refusal:
    return Refusal(404, "Not found", "Not Found", path=path)


def signature_unknown() -> Refusal:
    return Refusal(401, "invalid signature", "Invalid Signature")


def api_unreachable() -> Refusal:
    return Refusal(502, "cannot reach the API of this server; try again in a moment", "API Unreachable")


def wants_html(headers: Mapping[str, str]) -> bool:
    """Browsers get a page, unless it is a script in them that asks."""
    if "mozilla/" not in headers.get("User-Agent", "").lower():
        return False
    if "application/json" in headers.get("Accept", "") or "json" in headers.get("Content-Type", ""):
        return False
    return "X-Requested-With" not in headers and headers.get("Sec-Fetch-Mode", "") not in _SAME_PAGE


def answer(refusal: Refusal, headers: Mapping[str, str]) -> web.Response:
    response = web.Response(status=refusal.status)
    if wants_html(headers):
        response.text = _html(refusal)
        response.content_type = "text/html"
        response.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
    else:
        response.text = json.dumps(refusal.fields())
        response.content_type = "application/json"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    # The guest's answers are open to scripts of any origin (wire contract 6.2.7); so is the news that it is gone.
    response.headers["Access-Control-Allow-Origin"] = "*"
    response.headers["Server"] = "warren"
    if refusal.status in _NO_RETRY:
        response.headers["Should-Retry"] = "false"
    return response


def _html(refusal: Refusal) -> str:
    named = {"Sandbox": refusal.sandbox_id, "Port": refusal.port}
    details = "".join(
        f"<p>{name}: <code>{escape(str(value))}</code></p>" for name, value in named.items() if value is not None
    )
    return _PAGE.format(title=escape(refusal.title), style=_STYLE, message=escape(refusal.message), details=details)
