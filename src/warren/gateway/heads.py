"""Heads of HTTP messages as values: what goes on to the other side, and in which frame. Pure, bytes in and out."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

RawHeaders = Sequence[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""RFC 9110 7.6.1; besides, whatever the Connection header names."""

GATEWAY_OWN = frozenset(
    {
        b"host",
        b"expect",
        b"e2b-traffic-access-token",
        b"x-warren-control",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"forwarded",
        b"x-real-ip",
    }
)
"""Set here or meant for here: a client's own are never passed on."""

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_LENGTH = re.compile(rb"[0-9]{1,18}")


class MalformedHead(ValueError):
    """cannot pass this head on: it has bytes that would be read differently by somebody else"""


@dataclass(frozen=True, slots=True)
class RequestLine:
    method: str
    path: str


@dataclass(frozen=True, slots=True)
class Forwarding:
    """What the gateway tells the other side about the client."""

    host: str
    client_host: str
    client_address: str
    scheme: str
    own: Mapping[str, str] = field(default_factory=dict[str, str])
    """Headers that take the place of the client's, if it sent any of that name."""


@dataclass(frozen=True, slots=True)
class Framing:
    """How a body is delimited: by chunks, by a length, or (neither) by the end of the connection or not at all."""

    chunked: bool = False
    length: int | None = None


def request_head(
    line: RequestLine, headers: RawHeaders, about: Forwarding, framing: Framing, connection: bytes
) -> bytes:
    """`connection` is the value of our own Connection header: keep-alive, close or Upgrade."""
    lines = [b"%b %b HTTP/1.1" % (line.method.encode(), line.path.encode("utf-8", "surrogateescape"))]
    lines.append(b"Host: " + about.host.encode())
    own = {name.lower().encode(): value.encode() for name, value in about.own.items()}
    lines.extend(_passed(headers, HOP_BY_HOP | GATEWAY_OWN | {b"content-length", *own}))
    lines.extend(name + b": " + value for name, value in own.items())
    lines.append(b"X-Forwarded-For: " + about.client_address.encode())
    lines.append(b"X-Forwarded-Host: " + about.client_host.encode())
    lines.append(b"X-Forwarded-Proto: " + about.scheme.encode())
    if connection.lower() == b"upgrade":
        lines.append(b"Upgrade: websocket")
    lines.append(b"Connection: " + connection)
    return _ended(lines, framing)


def response_head(status: int, reason: str, headers: RawHeaders, framing: Framing, connection: bytes | None) -> bytes:
    lines = [b"HTTP/1.1 %d %b" % (status, _FORBIDDEN.sub(b"", reason.encode("utf-8", "surrogateescape")))]
    lines.extend(_passed(headers, HOP_BY_HOP | {b"content-length"}))
    if status == 101:
        lines.append(b"Upgrade: websocket")
    if connection is not None:
        lines.append(b"Connection: " + connection)
    return _ended(lines, framing)


def request_framing(headers: RawHeaders) -> Framing:
    """Raises MalformedHead where two readers could disagree about the end of the body (request smuggling)."""
    codings, lengths = _values(headers, b"transfer-encoding"), _values(headers, b"content-length")
    if codings:
        if lengths or [coding.strip(b" \t").lower() for coding in codings] != [b"chunked"]:
            raise MalformedHead("cannot read the body: use either Content-Length or Transfer-Encoding: chunked")
        return Framing(chunked=True)
    return Framing(length=_length(lengths))


def response_framing(method: str, status: int, headers: RawHeaders, *, chunked: bool, http10: bool) -> Framing:
    """The frame towards the client. `chunked`: the sandbox used chunks. `http10`: the client cannot read any."""
    length = None if chunked else _length(_values(headers, b"content-length"))
    if has_no_body(method, status):
        return Framing(length=length if method == "HEAD" else None)
    if length is not None:
        return Framing(length=length)
    return Framing(chunked=not http10)


def has_no_body(method: str, status: int) -> bool:
    return method == "HEAD" or status in (204, 304) or status < 200


def header_bytes(headers: RawHeaders) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers)


def _passed(headers: RawHeaders, drop: frozenset[bytes]) -> Iterable[bytes]:
    named = {token.strip().lower() for value in _values(headers, b"connection") for token in value.split(b",") if token}
    for name, value in headers:
        lower = name.lower()
        if lower in drop or lower in named:
            continue
        if not _NAME.fullmatch(name) or _FORBIDDEN.search(value):
            raise MalformedHead("cannot pass on a header with control characters")
        yield name + b": " + value


def _ended(lines: list[bytes], framing: Framing) -> bytes:
    if framing.chunked:
        lines.append(b"Transfer-Encoding: chunked")
    elif framing.length is not None:
        lines.append(b"Content-Length: %d" % framing.length)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _values(headers: RawHeaders, name: bytes) -> list[bytes]:
    return [value for key, value in headers if key.lower() == name]


def _length(values: list[bytes]) -> int | None:
    if not values:
        return None
    if len(values) > 1 or not _LENGTH.fullmatch(values[0].strip(b" \t")):
        raise MalformedHead("cannot read the body: Content-Length is not one whole number")
    return int(values[0])
