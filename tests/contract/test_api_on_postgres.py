"""NUL, which Postgres cannot hold in text: no field and no parameter of the API makes a server's error of it."""

from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from tests.postgres_cluster import Cluster
from tests.unit.api_lines import line_of, path_of, title
from tests.unit.api_server import ApiServer, api_server
from warren.api.app import create_app
from warren.api.routes import ROUTES, Route
from warren.model.errors import BadRequest
from warren.store.sql import SqlStore

pytestmark = [pytest.mark.threat("D5"), pytest.mark.anyio]

NUL = "a\0b"
VALUES = (NUL, {"x": NUL})


@pytest.fixture
async def server(postgres: Cluster, tmp_path: Path) -> AsyncGenerator[ApiServer]:
    async with api_server(tmp_path, url=postgres.create("nul")) as running:
        yield running
    postgres.drop("nul")


def requests(document: dict[str, Any], route: Route, box: str) -> Iterator[dict[str, Any]]:
    """One for each place of a route that takes text."""
    line, operation = line_of(route), document["paths"][route.path.replace(":path", "")][route.method.lower()]
    if "{" in route.path:
        yield {"url": path_of(route, "a%00b"), "json": line.body}
    for parameter in operation.get("parameters", ()):
        name, where = parameter["name"], {"query": "params", "header": "headers"}.get(parameter["in"])
        if where is not None:
            yield {"url": path_of(route, box), "json": line.body, where: {name: NUL.encode()}}
    for field in _fields(document, operation):
        for value in VALUES:
            yield {"url": path_of(route, box), "json": {**(line.body or {}), field: value}}


def _fields(document: dict[str, Any], operation: dict[str, Any]) -> list[str]:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    named = [one["$ref"] for one in (body, *body.get("anyOf", ())) if "$ref" in one]
    return [field for ref in named for field in document["components"]["schemas"][ref.split("/")[-1]]["properties"]]


async def test_nul_in_any_text_is_the_caller_s_error_or_none(server: ApiServer) -> None:
    document = create_app(server.control.context).openapi()
    box = (await server.client.post("/v2/sandboxes", json={"templateID": "base"})).json()["sandboxID"]
    tried = 0
    for route in ROUTES:
        for request in requests(document, route, box):
            tried += 1
            answer = await server.client.request(route.method, **request)
            assert answer.status_code < 500 or answer.status_code == 501, (title(route), request, answer.text)
    assert tried > 100


async def test_what_gets_through_all_the_same_has_a_name(postgres: Cluster) -> None:
    store = SqlStore(postgres.create("raw"))
    await store.open()

    def raw(connection: Connection) -> None:
        connection.execute(text("SELECT CAST(:it AS text)"), {"it": NUL})

    with pytest.raises(BadRequest, match="NUL"):
        await store._database.read(raw)
    await store.close()
    postgres.drop("raw")
