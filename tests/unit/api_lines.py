"""One line for each route of the API: what of others' its path could name. A route without a line fails a test."""

import enum
from dataclasses import dataclass, field
from typing import Any

from fastapi.routing import APIRoute

from warren.api.routes import ROUTES, Access, Route


class Names(enum.Enum):
    """What a request of this route points at."""

    NOTHING = "nothing: the answer is about the caller's own project, or about nobody"
    SANDBOX = "a sandbox"
    KEY = "an API key"
    TEMPLATE = "a template"
    UPLOAD = "an upload, by a signed link"
    SECRET = "a secret"
    VOLUME = "a volume"
    CONTENT = "a volume, opened by its token alone"


@dataclass(frozen=True)
class Line:
    """`body` is the least that the route takes; `query` likewise."""

    names: Names = Names.NOTHING
    body: dict[str, Any] | None = None
    query: dict[str, str] = field(default_factory=dict)


_SANDBOX = "/sandboxes/{sandbox_id}"
_SECRET = "/secrets/{secret_id}"
_VOLUME = "/volumes/{volume_id}"
_CONTENT = "/volumecontent/{volume_id}"
_OWN = Line()
_A_SANDBOX = Line(Names.SANDBOX)
_TEMPLATE = "/templates/{template_id:path}"
_BUILD = _TEMPLATE + "/builds/{build_id}"
_A_TEMPLATE = Line(Names.TEMPLATE)
_OTHERS = {"{files_hash}": "0" * 64, "{build_id}": "6a1f3c9e-0000-4000-8000-00000000b01d"}
"""What a path names besides its first variable."""

LINES: dict[tuple[str, str], Line] = {
    ("GET", "/health"): _OWN,
    ("GET", "/metrics"): _OWN,
    ("GET", "/machine"): _OWN,
    ("POST", "/machine/prune"): _OWN,
    ("GET", "/teams"): _OWN,
    ("GET", "/api-keys"): _OWN,
    ("POST", "/api-keys"): Line(body={"name": "new"}),
    ("PATCH", "/api-keys/{key_id}"): Line(Names.KEY, {"name": "taken over"}),
    ("DELETE", "/api-keys/{key_id}"): Line(Names.KEY),
    ("POST", "/v2/sandboxes"): Line(body={"templateID": "base"}),
    ("POST", "/sandboxes"): Line(body={"templateID": "base"}),
    ("GET", "/v2/sandboxes"): _OWN,
    ("GET", "/sandboxes"): _OWN,
    ("GET", "/sandboxes/metrics"): Line(query={"sandbox_ids": "i00000000000000000000"}),
    ("GET", _SANDBOX): _A_SANDBOX,
    ("DELETE", _SANDBOX): _A_SANDBOX,
    ("POST", "/v2" + _SANDBOX + "/connect"): Line(Names.SANDBOX, {"timeout": 5}),
    ("POST", _SANDBOX + "/connect"): Line(Names.SANDBOX, {"timeout": 5}),
    ("POST", _SANDBOX + "/resume"): Line(Names.SANDBOX, {}),
    ("POST", _SANDBOX + "/timeout"): Line(Names.SANDBOX, {"timeout": 0}),
    ("POST", _SANDBOX + "/refreshes"): Line(Names.SANDBOX, {}),
    ("PUT", _SANDBOX + "/network"): Line(Names.SANDBOX, {"allow_internet_access": False}),
    ("GET", _SANDBOX + "/metrics"): _A_SANDBOX,
    ("GET", _SANDBOX + "/logs"): _A_SANDBOX,
    ("GET", "/v2" + _SANDBOX + "/logs"): _A_SANDBOX,
    ("POST", _SANDBOX + "/pause"): Line(Names.SANDBOX, {}),
    ("POST", _SANDBOX + "/fork"): Line(Names.SANDBOX, {}),
    ("POST", _SANDBOX + "/snapshots"): Line(Names.SANDBOX, {}),
    ("GET", "/templates"): _OWN,
    ("GET", "/v2/templates"): _OWN,
    ("POST", "/v3/templates"): Line(body={"name": "new"}),
    ("POST", "/v2/templates"): Line(body={"alias": "new"}),
    ("GET", "/templates/aliases/{alias:path}"): _A_TEMPLATE,
    ("POST", "/templates/tags"): Line(body={"target": "none", "tags": ["v1"]}),
    ("DELETE", "/templates/tags"): Line(body={"name": "none", "tags": ["v1"]}),
    ("GET", _TEMPLATE + "/tags"): _A_TEMPLATE,
    ("GET", _TEMPLATE + "/files/{files_hash}"): _A_TEMPLATE,
    ("PUT", _TEMPLATE + "/files/{files_hash}"): Line(
        Names.UPLOAD, query={"project": "x", "key": "x", "expires": "1", "signature": "x"}
    ),
    ("POST", "/v2" + _BUILD): Line(Names.TEMPLATE, {"fromImage": "debian"}),
    ("DELETE", _BUILD): _A_TEMPLATE,
    ("GET", _BUILD + "/status"): _A_TEMPLATE,
    ("GET", _BUILD + "/logs"): _A_TEMPLATE,
    ("GET", _TEMPLATE + "/settings/idle"): _A_TEMPLATE,
    ("PUT", _TEMPLATE + "/settings/idle"): Line(Names.TEMPLATE, {"freezeAfter": 1}),
    ("DELETE", _TEMPLATE + "/settings/idle"): _A_TEMPLATE,
    ("GET", _TEMPLATE): _A_TEMPLATE,
    ("PATCH", "/v2" + _TEMPLATE): Line(Names.TEMPLATE, {"public": True}),
    ("PATCH", _TEMPLATE): Line(Names.TEMPLATE, {"public": True}),
    ("DELETE", _TEMPLATE): _A_TEMPLATE,
    ("GET", "/snapshots"): _OWN,
    ("GET", "/pools"): _OWN,
    ("GET", "/volumes"): _OWN,
    ("POST", "/volumes"): Line(body={"name": "new"}),
    ("GET", _VOLUME): Line(Names.VOLUME),
    ("DELETE", _VOLUME): Line(Names.VOLUME),
    ("GET", _CONTENT + "/dir"): Line(Names.CONTENT, query={"path": "/"}),
    ("POST", _CONTENT + "/dir"): Line(Names.CONTENT, query={"path": "/new"}),
    ("GET", _CONTENT + "/path"): Line(Names.CONTENT, query={"path": "/"}),
    ("PATCH", _CONTENT + "/path"): Line(Names.CONTENT, {"mode": 511}, {"path": "/"}),
    ("DELETE", _CONTENT + "/path"): Line(Names.CONTENT, query={"path": "/kept"}),
    ("GET", _CONTENT + "/file"): Line(Names.CONTENT, query={"path": "/kept"}),
    ("PUT", _CONTENT + "/file"): Line(Names.CONTENT, query={"path": "/kept"}),
    ("GET", "/secrets"): _OWN,
    ("POST", "/secrets"): Line(body={"name": "new", "value": "x"}),
    ("GET", _SECRET): Line(Names.SECRET),
    ("POST", _SECRET): Line(Names.SECRET, {"value": "taken over"}),
    ("DELETE", _SECRET): Line(Names.SECRET),
}

WITH_KEY = [route for route in ROUTES if route.access in (Access.KEY, Access.ROOT)]


def line_of(route: Route) -> Line:
    return LINES[route.method, route.path]


def naming(what: Names) -> list[Route]:
    return [route for route in ROUTES if LINES.get((route.method, route.path), _OWN).names is what]


def path_of(route: Route | APIRoute, thing: str) -> str:
    """The route's path with its first variable filled in, and the others with what is nobody's."""
    head, brace, rest = route.path.partition("{")
    path = head + thing + rest.partition("}")[2] if brace else head
    for variable, value in _OTHERS.items():
        path = path.replace(variable, value)
    return path


def title(route: Route) -> str:
    return f"{route.method} {route.path}"
