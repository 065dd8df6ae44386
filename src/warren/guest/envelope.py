"""The bytes of a Connect stream (wire contract 3.1) as frames. No sockets here; the other side is not trusted."""

import json
import struct
from dataclasses import dataclass
from typing import Any, cast

from warren.model.errors import Unavailable

FRAME_MAX = 16 * 1024 * 1024
"""Bytes of one frame; the guest sends at most 256 KiB of output, a third more in base64."""

_HEAD = struct.Struct(">BI")
_COMPRESSED, _END = 1, 2


@dataclass(frozen=True, slots=True)
class Message:
    """One JSON object of the stream."""

    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class End:
    """The stream is complete; `code` and `message` say why when it failed."""

    code: str | None = None
    message: str = ""


class FrameReader:
    """Feed it bytes as they come; it gives the frames that are complete. Raises Unavailable for anything else."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message | End]:
        self._buffer += data
        frames: list[Message | End] = []
        position = 0
        while len(self._buffer) - position >= _HEAD.size:
            flags, length = _HEAD.unpack_from(self._buffer, position)
            if length > FRAME_MAX:
                raise _broken(f"a frame of {length} bytes")
            if len(self._buffer) - position - _HEAD.size < length:
                break
            start = position + _HEAD.size
            frames.append(_frame(flags, bytes(self._buffer[start : start + length])))
            position = start + length
        del self._buffer[:position]
        return frames


def encode(body: dict[str, Any]) -> bytes:
    payload = json.dumps(body).encode()
    return _HEAD.pack(0, len(payload)) + payload


def _frame(flags: int, payload: bytes) -> Message | End:
    if flags & _COMPRESSED or flags & ~(_COMPRESSED | _END):
        raise _broken(f"flags {flags:#x}")
    try:
        body: object = json.loads(payload or b"{}")
    except (ValueError, RecursionError):
        raise _broken("no JSON") from None
    if not isinstance(body, dict):
        raise _broken("JSON that is no object")
    content = cast("dict[str, Any]", body)
    return _end(content) if flags & _END else Message(content)


def _end(body: dict[str, Any]) -> End:
    error = body.get("error")
    if error is None:
        return End()
    if not isinstance(error, dict):
        raise _broken("an error without a code")
    fields = cast("dict[str, Any]", error)
    return End(code=str(fields.get("code", "unknown")), message=str(fields.get("message", "")))


def _broken(what: str) -> Unavailable:
    return Unavailable(f"cannot understand the sandbox: its guest sent {what}")
