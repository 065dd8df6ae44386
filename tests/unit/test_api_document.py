"""The OpenAPI document against the server: schemathesis makes requests from it, good and bad, and reads the answers."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.fuzz.budget import budget
from tests.unit.api_lines import title
from tests.unit.api_server import api_server
from tests.unit.build_rig import FakeBuilder
from warren.api.app import create_app
from warren.api.routes import ROUTES, Route

pytestmark = pytest.mark.threat("D5")

CHECKS = [content_type_conformance, status_code_conformance, response_schema_conformance]
START_DEADLINE_S = 60


class Running:
    """The application on a loop and a port of its own: schemathesis is synchronous."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self.url = self.key = ""
        self.document: Any = None

    def __enter__(self) -> "Running":
        self._thread.start()
        assert self._ready.wait(START_DEADLINE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(START_DEADLINE_S)

    async def _serve(self) -> None:
        async with api_server(self._state, builder=FakeBuilder()) as server:
            app = create_app(server.control.context)
            self._server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off"))
            self._server.install_signal_handlers = lambda: None  # not the main thread
            async with asyncio.TaskGroup() as group:
                serving = group.create_task(self._server.serve())
                while not self._server.started and not serving.done():
                    await asyncio.sleep(0.01)
                self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"
                self.key, self.document = server.key, schemathesis.openapi.from_dict(app.openapi())
                self._ready.set()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("api")) as one:
        yield one


@pytest.mark.parametrize("route", ROUTES, ids=title)
def test_every_answer_is_one_that_the_document_names(running: Running, route: Route) -> None:
    operation = running.document[route.path.replace(":path", "")][route.method]
    cases = [operation.as_strategy(generation_mode=mode) for mode in GenerationMode if supports(operation, mode)]

    @budget(8)
    @given(st.one_of(cases))
    def check(case: Any) -> None:
        case.call_and_validate(base_url=running.url, headers={"X-API-KEY": running.key}, checks=CHECKS)

    check()


def supports(operation: Any, mode: GenerationMode) -> bool:
    """There is no bad request to a route that takes nothing."""
    return mode is GenerationMode.POSITIVE or operation.body or any(operation.iter_parameters())
