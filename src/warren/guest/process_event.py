"""What happens to a process, decoded from the guest's messages (wire contract 3.2). Pure; the guest is not trusted."""

import base64
import binascii
import signal
from dataclasses import dataclass
from typing import Any, cast

from warren.model.errors import Unavailable

SIGNALLED = 128
"""What shells add to the number of the signal that ended a command."""


@dataclass(frozen=True, slots=True)
class Started:
    pid: int


@dataclass(frozen=True, slots=True)
class Output:
    """is_error: it was written to stderr. A terminal has only the other one."""

    data: bytes
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    exit_code: int


ProcessEvent = Started | Output | Ended


def decode(message: dict[str, Any]) -> ProcessEvent | None:
    """None for what is to be ignored: keep-alives, and kinds that a newer guest may know. Raises Unavailable."""
    event = _object(message, "event")
    if "start" in event:
        return Started(_number(_object(event, "start"), "pid"))
    if "data" in event:
        return _output(_object(event, "data"))
    if "end" in event:
        return _ended(_object(event, "end"))
    return None


def _output(data: dict[str, Any]) -> Output | None:
    for kind in ("stdout", "stderr", "pty"):
        if kind in data:
            text = data[kind]
            try:
                return Output(base64.b64decode(text, validate=True), is_error=kind == "stderr")
            except (binascii.Error, ValueError, TypeError):
                raise _broken(f"{kind} that is no base64") from None
    return None


def _ended(end: dict[str, Any]) -> Ended:
    if end.get("exited") is True:
        return Ended(_number(end, "exitCode") & 0xFF)
    return Ended(_signal_code(str(end.get("status", ""))))


def _signal_code(status: str) -> int:
    """`signal: killed`, as the guest words it, is 137 to a shell."""
    name = status.removeprefix("signal: ").partition(" (")[0].strip().lower()
    for number in signal.valid_signals():
        if (signal.strsignal(number) or "").lower() == name:
            return SIGNALLED + int(number)
    return SIGNALLED + signal.SIGKILL


def _object(parent: dict[str, Any], name: str) -> dict[str, Any]:
    value = parent.get(name, {})
    if not isinstance(value, dict):
        raise _broken(f"{name} that is no object")
    return cast("dict[str, Any]", value)


def _number(parent: dict[str, Any], name: str) -> int:
    """Zero is left out on the wire."""
    value = parent.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**31:
        raise _broken(f"{name} that is no number")
    return value


def _broken(what: str) -> Unavailable:
    return Unavailable(f"cannot understand the sandbox: its guest sent {what}")
