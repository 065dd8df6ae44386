"""Who may do what: every route of the table against no key, dead keys, others' keys and others' things."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from functools import partial
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from tests.unit.api_lines import LINES, WITH_KEY, Names, line_of, naming, path_of, title
from tests.unit.api_server import BASE, ApiServer, api_server
from tests.unit.build_rig import FakeBuilder
from warren.api.app import create_app
from warren.api.routes import ROUTES, Access, Route
from warren.model.project import ApiKey
from warren.model.template import Template

pytestmark = [pytest.mark.threat("D1", "D2"), pytest.mark.anyio]

NOBODY_S_SANDBOX = "i" + "0" * 20
NOBODY_S_KEY = "6a1f3c9e-0000-4000-8000-00000000dead"
OPEN_PATHS = {"/health"}
"""All that answers without a key. Whatever joins them has to be put here on purpose."""
ROOT_PATHS = {"/machine/prune"}
LOCAL_PATHS = {"/metrics", "/machine"}
SIGNED_PATHS = {"/templates/{template_id:path}/files/{files_hash}"}
DOCUMENT_PATHS = {"/openapi.json", "/docs", "/docs/oauth2-redirect"}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[ApiServer]:
    async with api_server(tmp_path_factory.mktemp("api"), sql=True, builder=FakeBuilder()) as running:
        yield running


@pytest.fixture(scope="module")
async def stranger(server: ApiServer) -> dict[str, str]:
    """Headers with a good key of a project that owns nothing."""
    return await server.other_project()


async def ask(server: ApiServer, route: Route, thing: str = "x", headers: dict[str, str] | None = None) -> Any:
    line = line_of(route)
    return await server.client.request(
        route.method, path_of(route, thing), json=line.body, params=line.query, headers=headers
    )


async def create(server: ApiServer, **fields: Any) -> dict[str, Any]:
    answer = await server.client.post("/v2/sandboxes", json={"templateID": "base", **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_every_route_has_a_line_and_an_access_that_was_chosen(server: ApiServer) -> None:
    app = create_app(server.control.context)
    served = {(method, route.path) for route in app.routes if isinstance(route, APIRoute) for method in route.methods}
    assert served == set(LINES), "say in api_lines.py what the new route's path can name"
    others = {getattr(route, "path", "") for route in app.routes if not isinstance(route, APIRoute)}
    assert others == DOCUMENT_PATHS
    assert {route.path for route in ROUTES if route.access is Access.OPEN} == OPEN_PATHS
    assert {route.path for route in ROUTES if route.access is Access.LOCAL} == LOCAL_PATHS
    assert {route.path for route in ROUTES if route.access is Access.SIGNED} == SIGNED_PATHS
    assert {route.path for route in ROUTES if route.access is Access.ROOT} == ROOT_PATHS
    variables = {title(route) for route in ROUTES if "{" in route.path}
    assert variables == {title(route) for what in Names if what is not Names.NOTHING for route in naming(what)}


async def test_what_touches_all_projects_takes_the_key_of_this_machine_s_root(server: ApiServer) -> None:
    file = server.control.context.root_key
    for content in (None, "", "\n", server.key[:-1], server.key + "x"):
        if content is not None:
            file.write_text(content)
        for route in (route for route in ROUTES if route.access is Access.ROOT):
            answer = await ask(server, route)
            assert (answer.status_code, answer.json()["error_code"]) == (403, "forbidden"), content
    file.write_text(server.key + "\n")
    for route in (route for route in ROUTES if route.access is Access.ROOT):
        assert (await ask(server, route)).status_code == route.status
    file.unlink()


@pytest.fixture(scope="module")
async def victim(server: ApiServer) -> dict[str, Any]:
    return await create(server)


@pytest.fixture(scope="module")
async def revoked(server: ApiServer) -> tuple[ApiKey, str]:
    key, secret = await server.control.context.keys.create(server.project, "revoked")
    await server.control.context.keys.revoke(server.project, key.id)
    return key, secret


def is_refused(answer: httpx.Response) -> bool:
    leaks = set(answer.headers) & {"x-total-running", "x-next-token"}
    return (answer.status_code, answer.json()["error_code"], leaks) == (401, "unauthenticated", set())


@pytest.mark.parametrize("route", WITH_KEY, ids=title)
async def test_no_route_answers_without_a_key_in_force(
    server: ApiServer, victim: dict[str, Any], revoked: tuple[ApiKey, str], route: Route
) -> None:
    thing = victim["sandboxID"]
    keys = await server.control.context.keys.list(server.project)
    before = (await server.client.get(f"/sandboxes/{thing}")).json()
    for headers in ({"X-API-KEY": ""}, {"X-API-KEY": "e2b_" + "0" * 40}, {"X-API-KEY": revoked[1]}):
        assert is_refused(await ask(server, route, thing, headers)), headers
    assert (await server.client.get(f"/sandboxes/{thing}")).json() == before
    assert [key.id for key in await server.control.context.keys.list(server.project)] == [key.id for key in keys]


async def test_what_is_like_a_key_is_none(
    server: ApiServer, victim: dict[str, Any], revoked: tuple[ApiKey, str]
) -> None:
    token = victim["envdAccessToken"]
    for headers in (
        {"X-API-KEY": "", "Authorization": f"Bearer {revoked[1]}"},
        {"X-API-KEY": "", "Authorization": server.key},
        {"X-API-KEY": "", "Authorization": f"Basic {server.key}"},
        {"X-API-KEY": server.key[:-1]},
        {"X-API-KEY": server.key.upper()},
        {"X-API-KEY": server.key + " x"},
        {"X-API-KEY": token},
        {"X-API-KEY": "", "X-Access-Token": token},
        {"X-API-KEY": revoked[0].digest},
    ):
        assert is_refused(await server.client.get("/v2/sandboxes", headers=headers)), headers


async def test_a_key_is_dead_from_the_next_request_on(server: ApiServer) -> None:
    key, secret = await server.control.context.keys.create(server.project, "short-lived")
    headers = {"X-API-KEY": secret}
    assert (await server.client.get("/v2/sandboxes", headers=headers)).status_code == 200
    assert (await server.client.delete(f"/api-keys/{key.id}", headers=headers)).status_code == 204
    assert (await server.client.get("/v2/sandboxes", headers=headers)).status_code == 401


def told(answer: httpx.Response, thing: str) -> tuple[int, str, dict[str, str]]:
    """All that a caller can see, without the name that it gave itself."""
    text = answer.text.replace(thing, "THING")
    return answer.status_code, text, {**answer.headers, "content-length": str(len(text)), "x-request-id": ""}


@pytest.mark.parametrize("route", naming(Names.SANDBOX), ids=title)
async def test_another_s_sandbox_is_like_none(server: ApiServer, stranger: dict[str, str], route: Route) -> None:
    mine, ended = (await create(server))["sandboxID"], (await create(server))["sandboxID"]
    await server.client.delete(f"/sandboxes/{ended}")
    before = (await server.client.get(f"/sandboxes/{mine}")).json()
    unknown = told(await ask(server, route, NOBODY_S_SANDBOX, stranger), NOBODY_S_SANDBOX)
    assert unknown[0] == 404
    assert '"error_code":"sandbox_not_found"' in unknown[1]
    for thing in (mine, ended, f"{mine}-warren"):
        assert told(await ask(server, route, thing, stranger), thing) == unknown
    assert (await server.client.get(f"/sandboxes/{mine}")).json() == before


@pytest.mark.parametrize("route", naming(Names.KEY), ids=title)
async def test_another_s_key_is_like_none(server: ApiServer, stranger: dict[str, str], route: Route) -> None:
    mine = (await server.control.context.keys.list(server.project))[0]
    unknown = told(await ask(server, route, NOBODY_S_KEY, stranger), NOBODY_S_KEY)
    assert unknown[0] == 404
    assert told(await ask(server, route, mine.id, stranger), mine.id) == unknown
    assert (await server.control.context.keys.list(server.project))[0] == mine


@pytest.mark.parametrize("route", naming(Names.SECRET), ids=title)
async def test_another_s_secret_is_like_none(server: ApiServer, stranger: dict[str, str], route: Route) -> None:
    name = f"n-{route.method}"
    mine = (await server.client.post("/secrets", json={"name": name, "value": "x"})).json()
    unknown = told(await ask(server, route, "nobody", stranger), "nobody")
    assert unknown[0] == 404
    for thing in (mine["secretID"], name):
        assert told(await ask(server, route, thing, stranger), thing) == unknown
    assert (await server.client.get(f"/secrets/{name}")).json() == mine


@pytest.mark.parametrize("route", naming(Names.VOLUME), ids=title)
async def test_another_s_volume_is_like_none(server: ApiServer, stranger: dict[str, str], route: Route) -> None:
    mine = (await server.client.post("/volumes", json={"name": f"n-{route.method}", "sizeMB": 16})).json()["volumeID"]
    nobody_s = "v" + "0" * 20
    unknown = told(await ask(server, route, nobody_s, stranger), nobody_s)
    assert unknown[0] == 404
    assert told(await ask(server, route, mine, stranger), mine) == unknown
    assert (await server.client.get(f"/volumes/{mine}")).status_code == 200


@pytest.mark.parametrize("route", naming(Names.CONTENT), ids=title)
async def test_only_a_volume_s_own_token_opens_its_files(server: ApiServer, route: Route) -> None:
    name = f"c-{route.method}-{route.path[-4:].strip('/')}"
    made = [await server.client.post("/volumes", json={"name": f"{name}{n}", "sizeMB": 16}) for n in range(2)]
    mine, other = [answer.json() for answer in made]
    opened = {"Authorization": f"Bearer {mine['token']}"}
    await server.client.put(
        f"/volumecontent/{mine['volumeID']}/file", params={"path": "/kept"}, content=b"kept", headers=opened
    )
    for thing in (mine["volumeID"], "v" + "0" * 20):
        for wrong in (
            {},
            {"Authorization": f"Bearer {other['token']}"},
            {"Authorization": f"Bearer {server.key}", "X-API-KEY": server.key},
            {"Authorization": mine["token"]},
            {"Authorization": f"Bearer {mine['token'][:-1]}"},
            {"X-API-KEY": mine["token"]},
        ):
            answer = await ask(server, route, thing, wrong)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), wrong
    listed = await server.client.get(f"/volumecontent/{mine['volumeID']}/dir", params={"path": "/"}, headers=opened)
    assert [entry["path"] for entry in listed.json()] == ["/kept"]
    assert (await ask(server, route, mine["volumeID"], opened)).status_code == route.status


def private_of(server: ApiServer) -> Template:
    return replace(BASE, id="tprivate", project_id=server.project.id, names=("mine",), public=False)


async def ask_about(
    server: ApiServer, method: str, path: str, body: dict[str, Any], headers: dict[str, str], name: str
) -> Any:
    body = {field: name if value == "NAME" else value for field, value in body.items()}
    return await server.client.request(method, path, json=body, headers=headers)


async def test_another_s_template_is_like_none(server: ApiServer, stranger: dict[str, str]) -> None:
    await server.store.put_template(private_of(server))
    asked = [partial(ask, server, route, headers=stranger) for route in naming(Names.TEMPLATE)]
    for method, path, body in (
        ("POST", "/v2/sandboxes", {"templateID": "NAME"}),
        ("POST", "/templates/tags", {"target": "NAME", "tags": ["v1"]}),
        ("DELETE", "/templates/tags", {"name": "NAME", "tags": ["v1"]}),
    ):
        asked.append(partial(ask_about, server, method, path, body, stranger))
    for do in asked:
        unknown = told(await do("nothing"), "nothing")
        assert unknown[0] == 404
        for name in ("mine", "tprivate", "default/mine", "mine:default", "MINE"):
            if name != "mine:default" or do.func is ask:  # a tag is no part of some names, and that is said first
                assert told(await do(name), name) == unknown, name
    made = await server.client.post("/v3/templates", json={"name": "default/mine"}, headers=stranger)
    assert (made.status_code, made.json()["error_code"]) == (403, "forbidden")
    listed = await server.client.get("/v2/sandboxes", params={"template": "mine"}, headers=stranger)
    assert (listed.status_code, listed.json()) == (200, [])


@pytest.mark.parametrize(
    "route", [route for route in naming(Names.NOTHING) if route.method == "GET" and route in WITH_KEY], ids=title
)
async def test_lists_hold_only_what_is_one_s_own(server: ApiServer, stranger: dict[str, str], route: Route) -> None:
    made = await create(server, metadata={"planted": "marker"})
    await server.store.put_template(private_of(server))
    key = (await server.control.context.keys.list(server.project))[0]
    answer = await server.client.get(
        route.path, params={"sandbox_ids": made["sandboxID"], "sandboxID": made["sandboxID"]}, headers=stranger
    )
    assert answer.status_code in (200, 501)
    assert answer.headers.get("x-total-running", "0") == "0"
    for secret in (made["sandboxID"], "marker", "tprivate", server.project.id, key.id, key.mask):
        assert secret not in answer.text


async def test_a_list_takes_no_project_but_the_key_s(server: ApiServer, stranger: dict[str, str]) -> None:
    for path in ("/templates", "/v2/templates"):
        answer = await server.client.get(path, params={"teamID": server.project.id}, headers=stranger)
        unknown = await server.client.get(path, params={"teamID": NOBODY_S_KEY}, headers=stranger)
        assert told(answer, server.project.id) == told(unknown, NOBODY_S_KEY)
        assert answer.status_code == 400


async def test_a_page_token_of_another_opens_nothing(server: ApiServer, stranger: dict[str, str]) -> None:
    for _ in range(2):
        await create(server)
    first = await server.client.get("/v2/sandboxes", params={"limit": 1})
    token = first.headers["x-next-token"]
    assert (await server.client.get("/v2/sandboxes", params={"nextToken": token}, headers=stranger)).json() == []


async def test_an_idempotency_key_of_another_finds_nothing(server: ApiServer, stranger: dict[str, str]) -> None:
    async def post(headers: dict[str, str]) -> Any:
        headers = {"Idempotency-Key": "same", **headers}
        return (await server.client.post("/v2/sandboxes", json={"templateID": "base"}, headers=headers)).json()

    mine, theirs = await post({}), await post(stranger)
    assert mine["sandboxID"] != theirs["sandboxID"]
    assert mine["envdAccessToken"] != theirs["envdAccessToken"]
    assert (await server.client.delete(f"/sandboxes/{theirs['sandboxID']}", headers=stranger)).status_code == 204
