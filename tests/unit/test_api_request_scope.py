"""One id names everything that a request causes."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.unit.api_server import api_server
from tests.unit.waiting import eventually
from warren.model.audit import Kind
from warren.telemetry.logs import configure
from warren.telemetry.request_id import accepted

pytestmark = pytest.mark.anyio


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level, out = root.handlers[:], root.level, io.StringIO()
    configure("debug", True, out)
    yield out
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


async def test_every_answer_has_an_id_the_client_s_own_if_it_is_plain(tmp_path: Path) -> None:
    async with api_server(tmp_path) as server:
        for path, status in (("/health", 204), ("/teams", 200), ("/nothing", 404), ("/sandboxes/i1", 404)):
            answer = await server.client.get(path)
            assert (answer.status_code, len(answer.headers["X-Request-Id"])) == (status, 16)
        given = await server.client.get("/health", headers={"X-Request-Id": "my-id.1"})
        assert given.headers["X-Request-Id"] == "my-id.1"


@pytest.mark.parametrize("given", ["", " ", "a b", "x" * 65, "a\nb", "é", "-a", '"', "%0a"])
def test_an_id_that_could_do_harm_is_replaced(given: str) -> None:
    assert accepted(given) != given and accepted(given).isalnum()


async def test_log_lines_and_records_of_a_request_carry_it(tmp_path: Path, logged: io.StringIO) -> None:
    async with api_server(tmp_path) as server:
        named = {"X-Request-Id": "of-the-create"}
        made = (await server.client.post("/v2/sandboxes", json={"templateID": "base"}, headers=named)).json()
        await server.client.delete(f"/sandboxes/{made['sandboxID']}", headers={"X-Request-Id": "of-the-kill"})
    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    ended = [line for line in lines if line["event"] == "sandbox ended"]
    assert [line.get("request") for line in ended] == ["of-the-kill"]


async def test_what_happens_by_itself_belongs_to_no_request(tmp_path: Path, logged: io.StringIO) -> None:
    async with api_server(tmp_path) as server:
        named = {"X-Request-Id": "of-the-create"}
        made = (await server.client.post("/v2/sandboxes", json={"templateID": "base"}, headers=named)).json()
        server.engine.kill_guest(made["sandboxID"])

        async def ended() -> bool:
            return any(event.kind is Kind.SANDBOX_END for event in server.audit.events) and "ended" in logged.getvalue()

        await eventually(ended)
    ended = [line for line in map(json.loads, logged.getvalue().splitlines()) if line["event"] == "sandbox ended"]
    assert [line.get("request") for line in ended] == [None]


async def test_each_step_of_a_create_is_measured(tmp_path: Path) -> None:
    async with api_server(tmp_path) as server:
        await server.client.post("/v2/sandboxes", json={"templateID": "base"})
        text = server.control.meters.render().decode()
        runtime = server.engine.runtimes[0]
        for step in ("admit", "wait", "store"):
            assert f'warren_create_step_seconds_count{{runtime="{runtime}",step="{step}"}} 1.0' in text


async def test_nothing_that_a_client_says_becomes_a_label(tmp_path: Path) -> None:
    evil = "evil-1234"
    async with api_server(tmp_path) as server:
        for body in ({"templateID": evil}, {"templateID": "base", "runtime": evil}, {"templateID": "base"}):
            await server.client.post("/v2/sandboxes", json=body, headers={"X-Warren-Runtime": evil})
        for path in (f"/{evil}", f"/sandboxes/{evil}", f"/templates/aliases/{evil}"):
            await server.client.request("DELETE", path, headers={"X-API-KEY": evil, "X-Request-Id": evil})
            await server.client.request(evil.upper(), path)
        assert evil not in server.control.meters.render().decode().lower()
