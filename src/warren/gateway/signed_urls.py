"""Signed file URLs on the shared origin: they name no sandbox, so the signature has to (wire contract 1.6, 3.6)."""

import hmac
import re
from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from urllib.parse import unquote_to_bytes

from warren.contracts.routing import Route
from warren.model import limits

FILES_PATH = "/files"
_SIGNATURE = re.compile(rb"v1_[A-Za-z0-9+/]{43}")
_SECONDS = re.compile(rb"[0-9]{1,18}")
_OPERATIONS = {"GET": b"read", "HEAD": b"read", "POST": b"write"}


def is_signed(raw_path: str) -> bool:
    path, _, query = raw_path.partition("?")
    return path == FILES_PATH and b"signature" in _fields(query)


def find_signer(method: str, raw_path: str, routes: Iterable[Route]) -> Route | None:
    """The sandbox whose access token made the signature. The guest checks it once more, path and expiry as well."""
    fields = _fields(raw_path.partition("?")[2])
    signature = fields.get(b"signature", b"").replace(b"=", b"")
    path = fields.get(b"path", b"")
    operation = _OPERATIONS.get(method)
    if operation is None or not _SIGNATURE.fullmatch(signature) or len(path) > limits.GATEWAY_SIGNED_PATH_MAX:
        return None
    signed = sha256(b"%b:%b:%b:" % (path, operation, fields.get(b"username", b"")))
    expiration = fields.get(b"signature_expiration")
    suffix = b"" if expiration is None else b":" + expiration
    found: Route | None = None
    for route in routes:
        if route.access_token is None:
            continue
        digest = signed.copy()
        digest.update(route.access_token.encode() + suffix)
        expected = b"v1_" + b64encode(digest.digest()).rstrip(b"=")
        if hmac.compare_digest(expected, signature):
            found = route  # no early exit: the time must not tell how many sandboxes there are before this one
    return found


def has_expired(raw_path: str, now: float) -> bool:
    """Whether the signature's time is over, as the guest reckons; also one whose time cannot be read."""
    expiration = _fields(raw_path.partition("?")[2]).get(b"signature_expiration")
    return expiration is not None and not (_SECONDS.fullmatch(expiration) and int(expiration) >= int(now))


def _fields(query: str) -> dict[bytes, bytes]:
    """The first value of each field, decoded to bytes as the guest decodes them: `+` is a space."""
    fields: dict[bytes, bytes] = {}
    for pair in query.split("&"):
        name, _, value = pair.replace("+", " ").partition("=")
        fields.setdefault(_decoded(name), _decoded(value))
    return fields


def _decoded(text: str) -> bytes:
    return unquote_to_bytes(text.encode("utf-8", "surrogateescape"))
