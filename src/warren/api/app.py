"""The REST application: the route table, the error forms, nothing else."""

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from warren import __version__
from warren.api import error_mapping
from warren.api.audit_trail import AuditTrail
from warren.api.body_limit import BodyLimit
from warren.api.context import Context
from warren.api.request_meter import RequestMeter
from warren.api.routes import ROUTES


def create_app(context: Context) -> FastAPI:
    app = FastAPI(title="Warren", version=__version__, docs_url="/docs", redoc_url=None)
    app.state.context = context
    for route in ROUTES:
        app.add_api_route(
            route.path,
            route.handler,
            methods=[route.method],
            status_code=route.status,
            response_model_exclude_none=True,
            name=f"{route.method} {route.path}",
        )
    error_mapping.install(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=["*"],
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=["x-next-token", "X-Total-Running"],
    )
    app.add_middleware(AuditTrail, audit=context.audit)
    app.add_middleware(RequestMeter, meters=context.meters)  # last, so outermost: it sees what the others answer
    return app
