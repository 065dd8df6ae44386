"""From the head of a request to what it is meant for (wire contract 1.7 and 6.1.4). Pure: knows no live sandbox."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

ID_HEADER = "E2b-Sandbox-Id"
PORT_HEADER = "E2b-Sandbox-Port"
PORT_MAX = 65_535

_ID = re.compile(r"[a-z0-9]{1,63}")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_.-]{1,253})(?::([0-9]{1,5}))?")
_PORT = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class SandboxTarget:
    sandbox_id: str
    port: int


@dataclass(frozen=True, slots=True)
class ApiTarget:
    pass


@dataclass(frozen=True, slots=True)
class SharedTarget:
    """A host that all sandboxes share, and no headers: only a signed URL can still name its sandbox."""


@dataclass(frozen=True, slots=True)
class Misdirected:
    """The caller's mistake, to be answered with 400."""

    message: str


Target = SandboxTarget | ApiTarget | SharedTarget | Misdirected


def resolve(host: str, headers: Mapping[str, str], domain: str) -> Target:
    """`host` is the Host header, `domain` that of this server without a port."""
    match = _HOST.fullmatch(host)
    if match is None:
        return Misdirected("Invalid host")
    name = match[1].lower().rstrip(".")
    if name == f"api.{domain}":
        return ApiTarget()
    if _is_shared(name, domain):
        return _from_headers(headers)
    return _from_name(name)


def _is_shared(name: str, domain: str) -> bool:
    if name in ("localhost", f"sandbox.{domain}"):
        return True
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _from_headers(headers: Mapping[str, str]) -> Target:
    sandbox_id, port = headers.get(ID_HEADER), headers.get(PORT_HEADER)
    if sandbox_id is None and port is None:
        return SharedTarget()
    if sandbox_id is None or port is None:
        return Misdirected(f"Missing {ID_HEADER if sandbox_id is None else PORT_HEADER} header")
    return _target(sandbox_id.partition("-")[0], port)


def _from_name(name: str) -> Target:
    label, dot, _ = name.partition(".")
    port, dash, rest = label.partition("-")
    if not dot or not dash:
        return Misdirected("Invalid host")
    return _target(rest.partition("-")[0], port)


def _target(sandbox_id: str, port: str) -> Target:
    """What follows a dash in an id is the client id of older SDKs; the callers have cut it off."""
    if not _ID.fullmatch(sandbox_id):
        return Misdirected("Invalid sandbox ID")
    if not _PORT.fullmatch(port) or not 1 <= int(port) <= PORT_MAX:
        return Misdirected("Invalid sandbox port")
    return SandboxTarget(sandbox_id, int(port))
