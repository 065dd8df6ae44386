"""The REST application: the route table, the error forms, nothing else."""

import inspect
from typing import Any

from fastapi import FastAPI, Response, Security
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader, HTTPBearer

from warren import __version__
from warren.api import error_mapping
from warren.api.audit_trail import AuditTrail
from warren.api.body_limit import BodyLimit
from warren.api.context import Context
from warren.api.request_meter import RequestMeter
from warren.api.request_scope import RequestScope
from warren.api.routes import ROUTES, Access, Route
from warren.api.schemas import ErrorOut, VolumeErrorOut
from warren.telemetry import request_id


def _errors(model: type[ErrorOut]) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": model} for status in ("4XX", "5XX")}


_ERRORS = {access: _errors(VolumeErrorOut if access is Access.VOLUME else ErrorOut) for access in Access}
_BY_KEY = [Security(APIKeyHeader(name="X-API-KEY", auto_error=False))]
_DOCUMENTED = {
    Access.KEY: _BY_KEY,
    Access.ROOT: _BY_KEY,
    Access.VOLUME: [Security(HTTPBearer(auto_error=False))],
}
"""For the OpenAPI document; `api.auth` is what looks."""


def create_app(context: Context) -> FastAPI:
    app = FastAPI(title="Warren", version=__version__, docs_url="/docs", redoc_url=None, redirect_slashes=False)
    app.state.context = context
    for route in ROUTES:
        app.add_api_route(
            route.path,
            route.handler,
            methods=[route.method],
            status_code=route.status,
            response_model_exclude_none=True,
            response_class=Response if _writes_itself(route) else JSONResponse,
            responses=_ERRORS[route.access],
            dependencies=_DOCUMENTED.get(route.access),
            name=f"{route.method} {route.path}",
        )
    error_mapping.install(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=["*"],
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=["x-next-token", "X-Total-Running", request_id.HEADER],
    )
    app.add_middleware(AuditTrail, audit=context.audit, meters=context.meters)
    app.add_middleware(RequestMeter, meters=context.meters)
    app.add_middleware(RequestScope)  # last, so outermost: all that the others do is done in it
    return app


def _writes_itself(route: Route) -> bool:
    """Its answer is no JSON, and the document must not say so."""
    return inspect.signature(route.handler).return_annotation is Response
