"""Bad input on every endpoint: a 4xx that says so in the one form of errors, never a 500, and nothing done."""

import inspect
from collections.abc import AsyncGenerator

import httpx
import pytest

from tests.unit.api_lines import WITH_KEY, Names, line_of, naming, path_of, title
from tests.unit.api_server import ApiServer, api_server
from tests.unit.build_rig import FakeBuilder
from warren.api.app import create_app
from warren.api.routes import ROUTES, Access, Route
from warren.model import limits

pytestmark = [pytest.mark.threat("D5"), pytest.mark.anyio]

JSON = {"Content-Type": "application/json"}
HUGE = "9" * 400
HALF = "\\ud800"
"""Half of a surrogate pair, as JSON can escape it."""
NO_OBJECT = {
    "nothing of a text": b"{",
    "null": b"null",
    "a list": b"[]",
    "a number": b"1",
    "a text": b'"x"',
    "bytes that are no UTF-8": b"\xff\xfe\xfd",
    "a NUL": b"\0",
    "two values": b"{}{}",
    "100,000 open brackets": b"[" * 100_000,
    "objects without an end": b'{"a":' * 2000,
    "half a character": f'{{"name":"{HALF}","templateID":"{HALF}"}}'.encode(),
    "half a character in a field that nobody knows": f'{{"name":"x","templateID":"base","x":["{HALF}"]}}'.encode(),
}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[ApiServer]:
    async with api_server(tmp_path_factory.mktemp("api"), sql=True, builder=FakeBuilder()) as running:
        yield running


@pytest.fixture(scope="module")
async def box(server: ApiServer) -> str:
    return (await server.client.post("/v2/sandboxes", json={"templateID": "base", "timeout": 3600})).json()["sandboxID"]


def refused(answer: httpx.Response) -> tuple[int, str]:
    """Status and error code of an answer that has the form of an error."""
    body = answer.json()
    assert set(body) == {"code", "message", "error_code"}, body
    assert body["code"] == answer.status_code
    assert body["message"]
    assert answer.headers["content-type"] == "application/json"
    return answer.status_code, body["error_code"]


def body_of(route: Route) -> inspect.Parameter | None:
    return inspect.signature(route.handler).parameters.get("body")


@pytest.mark.parametrize("route", [route for route in WITH_KEY if body_of(route)], ids=title)
async def test_a_body_that_is_no_object_is_400(server: ApiServer, box: str, route: Route) -> None:
    parameter = body_of(route)
    optional = parameter is not None and parameter.default is None
    for what, body in NO_OBJECT.items():
        if what == "null" and optional:
            continue
        answer = await server.client.request(route.method, path_of(route, box), content=body, headers=JSON)
        assert refused(answer) == (400, "bad_request"), what
    if not optional:
        answer = await server.client.request(route.method, path_of(route, box), headers=JSON)
        assert refused(answer) == (400, "bad_request")
    too_long = b'{"name":"' + b"x" * limits.MAX_BODY_BYTES + b'"}'
    answer = await server.client.request(route.method, path_of(route, box), content=too_long, headers=JSON)
    assert refused(answer) == (413, "request_entity_too_large")
    assert len(await server.engine.list()) == 1


NAMES = ("x", "%00", "%2e%2e", "..%2f..", "%ff", "ü", "%ed%a0%80", "%F0%9F%98%80", "a" * 5000, "%20", "I" + "0" * 20)


@pytest.mark.parametrize("what", [Names.SANDBOX, Names.KEY, Names.SECRET, Names.VOLUME], ids=lambda what: what.name)
async def test_a_name_that_can_be_nobody_s_is_404(server: ApiServer, what: Names) -> None:
    for route in naming(what):
        for name in NAMES:
            answer = await server.client.request(route.method, path_of(route, name), json=line_of(route).body)
            status, code = refused(answer)
            assert (status, code) in {
                (404, f"{what.name.lower()}_not_found"),
                (404, "no_such_route"),
            }, (title(route), name)


BAD_FIELDS: list[tuple[str, str, int, str]] = [
    ("/v2/sandboxes", '{"templateID":"base","timeout":' + HUGE + "}", 400, "bad_request"),
    ("/v2/sandboxes", '{"templateID":"base","timeout":1e999}', 400, "bad_request"),
    ("/v2/sandboxes", '{"templateID":"base","timeout":NaN}', 400, "bad_request"),
    ("/v2/sandboxes", '{"templateID":"base","timeout":1.5}', 400, "bad_request"),
    ("/v2/sandboxes", '{"templateID":"base","timeout":true}', 400, "bad_request"),
    ("/v2/sandboxes", '{"templateID":"base","timeout":-1}', 400, "invalid_timeout"),
    ("/v2/sandboxes", '{"templateID":"base","timeout":2147483647}', 400, "invalid_timeout"),
    ("/v2/sandboxes", '{"templateID":"\\u0000"}', 400, "bad_request"),
    ("/v2/sandboxes", '{"templateID":"../../base"}', 400, "bad_request"),
    ("/v2/sandboxes", '{"templateID":"' + "b" * 3000 + '"}', 400, "bad_request"),
    ("/v2/sandboxes", '{"templateID":["base"]}', 400, "bad_request"),
    ("/v2/sandboxes", '{"templateID":"base","metadata":{"a":null}}', 400, "bad_request"),
    ("/v2/sandboxes", '{"templateID":"base","metadata":{"a":"\\u0000"}}', 400, "bad_request"),
    ("/v2/sandboxes", '{"templateID":"base","metadata":{"' + HALF + '":"x"}}', 400, "bad_request"),
    ("/v2/sandboxes", '{"templateID":"base","envVars":{"A":"' + HALF + '"}}', 400, "bad_request"),
    ("/v2/sandboxes", '{"templateID":"base","envVars":{"":"x"}}', 400, "bad_request"),
    ("/v2/sandboxes", '{"templateID":"base","envVars":{"A":1}}', 400, "bad_request"),
    ("/v2/sandboxes", '{"templateID":"base","envVars":[]}', 400, "bad_request"),
    ("/v2/sandboxes", '{"templateID":"base","cpuCount":' + HUGE + "}", 400, "bad_request"),
    ("/v2/sandboxes", '{"templateID":"base","cpuCount":1000000}', 400, "resource_too_large"),
    ("/v2/sandboxes", '{"templateID":"base","memoryMB":-1}', 400, "bad_request"),
    ("/v2/sandboxes", '{"templateID":"base","runtime":"' + HALF + '"}', 400, "bad_request"),
    ("/v2/sandboxes", '{"templateID":"base","runtime":"\\u0000"}', 400, "bad_request"),
    ("/v2/sandboxes", '{"templateID":"base","network":{"maskRequestHost":"a\\r\\nX: y"}}', 400, "bad_request"),
    ("/v2/sandboxes", '{"templateID":"base","network":{"maskRequestHost":"a\\n"}}', 400, "bad_request"),
    ("/v2/sandboxes", '{"templateID":"base","network":{"denyOut":["1.2.3.4/99"]}}', 400, "invalid_network_rule"),
    ("/v2/sandboxes", '{"templateID":"base","network":{"denyOut":["\\u0661.2.3.4"]}}', 400, "invalid_network_rule"),
    ("/v2/sandboxes", '{"templateID":"base","network":{"httpsPorts":[' + HUGE + "]}}", 501, "not_supported"),
    ("/v2/sandboxes", '{"templateID":"base","volumeMounts":[{"name":"' + HALF + '"}]}', 400, "bad_request"),
    ("/v2/sandboxes", '{"templateID":"base","iam":{"tokens":1}}', 501, "not_supported"),
    ("/sandboxes/BOX/timeout", '{"timeout":-1}', 400, "bad_request"),
    ("/sandboxes/BOX/timeout", '{"timeout":"1"}', 400, "bad_request"),
    ("/sandboxes/BOX/timeout", '{"timeout":2147483647}', 400, "invalid_timeout"),
    ("/sandboxes/BOX/refreshes", '{"duration":' + HUGE + "}", 400, "bad_request"),
    ("/sandboxes/BOX/connect", "{}", 400, "bad_request"),
    ("/v2/sandboxes/BOX/connect", '{"timeout":0}', 400, "invalid_timeout"),
    ("/v2/sandboxes", '{"templateID":"base","volumeMounts":[{"name":"none","path":"/x"}]}', 400, "bad_request"),
    ("/volumes", '{"name":""}', 400, "bad_request"),
    ("/volumes", '{"name":"a/b"}', 400, "bad_request"),
    ("/volumes", '{"name":"a:ro"}', 400, "bad_request"),
    ("/volumes", '{"name":"\\u0000"}', 400, "bad_request"),
    ("/volumes", '{"name":"' + "a" * 129 + '"}', 400, "bad_request"),
    ("/volumes", '{"name":"a","sizeMB":1}', 400, "bad_request"),
    ("/volumes", '{"name":"a","sizeMB":' + HUGE + "}", 400, "bad_request"),
    ("/volumes", '{"name":"a","sizeMB":1000000}', 429, "limit_reached"),
    ("/api-keys", '{"name":""}', 400, "bad_request"),
    ("/api-keys", '{"name":"\\u0000"}', 400, "bad_request"),
    ("/api-keys", '{"name":"a\\u202eb"}', 400, "bad_request"),
    ("/api-keys", '{"name":"' + "a" * 129 + '"}', 400, "bad_request"),
]


@pytest.mark.parametrize(
    ("path", "body", "status", "code"), BAD_FIELDS, ids=[f"{p} {b[:60]}" for p, b, *_ in BAD_FIELDS]
)
async def test_a_bad_field_is_named(server: ApiServer, box: str, path: str, body: str, status: int, code: str) -> None:
    answer = await server.client.post(path.replace("BOX", box), content=body.encode(), headers=JSON)
    assert refused(answer) == (status, code), answer.text
    assert len(await server.engine.list()) == 1


VALUES = ("", "%00", "%ff", "x", "-1", "-0", HUGE, "1e9", "1.5", "NaN", "%D9%A1", "a=b%26c", "true", "a" * 20_000)
TIMES = ("0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00")
TOKENS = (
    "MDAwMS0wMS0wMVQwMDowMDowMCsxNDowMF9faTAwMDAwMDAwMDAwMDAwMDAwMDAw",  # a time that UTC does not have
    "MjAyNi0wMS0wMVQwMDowMDowMF9faTAwMDAwMDAwMDAwMDAwMDAwMDAw",  # a time without a zone
)


def queries(server: ApiServer, route: Route) -> list[str]:
    operation = create_app(server.control.context).openapi()["paths"][route.path.replace(":path", "")]
    return [one["name"] for one in operation[route.method.lower()].get("parameters", []) if one["in"] == "query"]


OPEN_TO_KEYS = [route for route in ROUTES if route.method == "GET" and route.access is not Access.VOLUME]


@pytest.mark.parametrize("route", OPEN_TO_KEYS, ids=title)
async def test_a_query_is_understood_or_refused(server: ApiServer, box: str, route: Route) -> None:
    thing = "base" if line_of(route).names is Names.TEMPLATE else box
    for name in queries(server, route):
        for value in (*VALUES, *TIMES, *TOKENS):
            answer = await server.client.get(f"{path_of(route, thing)}?{name}={value}")
            if answer.status_code not in (200, 501):
                assert refused(answer)[0] == 400, (name, value)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("startedAfter=0001-01-01T00:00:00%2B14:00", "bad_request"),
        ("startedAfter=x", "bad_request"),
        (f"nextToken={TOKENS[0]}", "invalid_page_token"),
        (f"nextToken={TOKENS[1]}", "invalid_page_token"),
        ("nextToken=%00", "invalid_page_token"),
        ("nextToken=%C3%BC", "invalid_page_token"),
        (f"limit={HUGE}", "bad_request"),
        ("template=%00", "bad_request"),
        ("metadata=%2500", "bad_request"),
    ],
)
async def test_a_bad_query_of_the_list_is_named(server: ApiServer, query: str, code: str) -> None:
    assert refused(await server.client.get(f"/v2/sandboxes?{query}")) == (400, code)


@pytest.mark.parametrize(
    "headers",
    [
        {"Idempotency-Key": ""},
        {"Idempotency-Key": "A"},
        {"Idempotency-Key": "a" * 256},
        {"Idempotency-Key": "a\0"},
        {"Idempotency-Key": "a\n"},
        {"X-Warren-Runtime": "a" * 5000},
        {"X-Warren-Runtime": "\xff"},
        {"X-Warren-Runtime": "../crun"},
    ],
)
async def test_a_bad_header_is_400(server: ApiServer, box: str, headers: dict[str, str]) -> None:
    raw = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    answer = await server.client.post("/v2/sandboxes", json={"templateID": "base"}, headers=raw)
    assert refused(answer) == (400, "bad_request")
    assert len(await server.engine.list()) == 1


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
async def test_a_body_of_another_kind_is_400(server: ApiServer, kind: str) -> None:
    answer = await server.client.post("/v2/sandboxes", content=b'{"templateID":"base"}', headers={"Content-Type": kind})
    assert refused(answer) == (400, "bad_request")


@pytest.mark.parametrize("path", ["/sandboxes/", "//", "/health/", "/%00", "/sandboxes//metrics", "/%2e%2e/health"])
async def test_a_path_is_never_guessed(server: ApiServer, path: str) -> None:
    """No redirect either: it would send the client wherever its Host header says."""
    assert refused(await server.client.get(f"http://warren{path}")) == (404, "no_such_route")
