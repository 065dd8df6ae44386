"""Who may reach what: from a request to a live sandbox's port, or to the refusal that is the answer."""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass

from warren.contracts.engine import GUEST_PORT
from warren.contracts.routing import Route, Routes
from warren.gateway import pages
from warren.gateway.hidden import is_hidden
from warren.gateway.pages import TRAFFIC_HEADER, Refusal
from warren.gateway.resolve import ApiTarget, Misdirected, SandboxTarget, SharedTarget, resolve
from warren.gateway.signed_urls import find_signer, is_signed

_ABSOLUTE = re.compile(r"https?://([^/?#@]+)(/.*|\?.*|)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Asked:
    """What of a request decides where it goes. `target` is the request target as sent, `path` its origin form."""

    method: str
    path: str
    host: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ToApi:
    pass


@dataclass(frozen=True, slots=True)
class ToSandbox:
    route: Route
    port: int

    def host_header(self, host: str) -> str:
        """The Host that the service sees: the client's, unless the sandbox wants it masked."""
        if self.port == GUEST_PORT or self.route.mask_host is None:
            return host
        return self.route.mask_host.replace("${PORT}", str(self.port))


@dataclass(frozen=True, slots=True)
class ToAbsent:
    """A sandbox that takes no traffic here. It may sleep, which `gateway.waking` finds out, or be another server's."""

    target: SandboxTarget


def origin_form(target: str, host: str) -> str | None:
    """The path and query of a request target; None for forms that a server of origins does not serve."""
    if target.startswith("/"):
        return None if "#" in target else target
    match = _ABSOLUTE.fullmatch(target)
    if match is None or match[1].lower() != host.lower() or "#" in match[2]:
        return None
    return match[2] if match[2].startswith("/") else "/" + match[2]


def admit(asked: Asked, routes: Routes, domain: str) -> ToApi | ToSandbox | ToAbsent | Refusal:
    target = resolve(asked.host, asked.headers, domain)
    match target:
        case ApiTarget():
            return ToApi()
        case Misdirected(message):
            return pages.malformed(message)
        case SharedTarget():
            return _by_signature(asked, routes)
        case SandboxTarget():
            return _by_name(asked, target, routes)


def _by_signature(asked: Asked, routes: Routes) -> ToSandbox | Refusal:
    if not is_signed(asked.path):
        return pages.malformed("Missing E2b-Sandbox-Id and E2b-Sandbox-Port headers, and the host names no sandbox")
    route = find_signer(asked.method, asked.path, routes.all())
    return pages.signature_unknown() if route is None else _to(route, GUEST_PORT)


def _by_name(asked: Asked, target: SandboxTarget, routes: Routes) -> ToSandbox | ToAbsent | Refusal:
    if target.port == GUEST_PORT and is_hidden(asked.path):
        return pages.hidden(asked.path.partition("?")[0])
    route = routes.find(target.sandbox_id)
    return ToAbsent(target) if route is None else admit_to(asked, route, target.port)


def admit_to(asked: Asked, route: Route, port: int) -> ToSandbox | Refusal:
    if route.traffic_token is not None and port != GUEST_PORT:
        given = asked.headers.get(TRAFFIC_HEADER)
        if given is None:
            return pages.token_missing(route.sandbox_id)
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), route.traffic_token.encode()):
            return pages.token_wrong(route.sandbox_id)
    return _to(route, port)


def _to(route: Route, port: int) -> ToSandbox | Refusal:
    return ToSandbox(route, port) if route.answers else pages.silent(route.sandbox_id)
