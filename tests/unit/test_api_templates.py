"""Templates over REST: registering, tags, deletion, publishing, as the wire contract (2.3, 6.3.3) has it."""

import uuid
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.api_server import BASE, ApiServer, api_server
from tests.unit.build_rig import FakeBuilder, built, ended, request, start
from warren.model import limits
from warren.model.audit import Kind, Outcome
from warren.model.server import Server

pytestmark = pytest.mark.anyio
HASH = "a1" * 32


def refused(answer: httpx.Response) -> tuple[int, str]:
    assert answer.json()["code"] == answer.status_code
    return answer.status_code, answer.json()["message"]


async def create(server: ApiServer, template: str, **headers: str) -> httpx.Response:
    return await server.client.post("/v2/sandboxes", json={"templateID": template}, headers=headers)


# --- registering -------------------------------------------------------------------------------------------


async def test_a_build_is_registered_with_names_tags_and_a_uuid(tmp_path: Path) -> None:
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        made = await request(server, "Mine:V1", tags=["stable", "v1"], cpuCount=3, memoryMB=512, minFreeDiskMb=4096)
        assert uuid.UUID(made["buildID"])
        assert made | {"templateID": "", "buildID": ""} == {
            "templateID": "", "buildID": "", "public": False, "names": ["default/mine"], "aliases": ["mine"],
            "tags": ["v1", "stable"],
        }  # fmt: skip
        again = await request(server, "default/mine")
        by_id = await request(server, made["templateID"])
        assert made["templateID"] == again["templateID"] == by_id["templateID"]
        assert again["tags"] == ["default"]
        found = (await server.client.get(f"/templates/{made['templateID']}")).json()
        assert (found["buildStatus"], found["buildCount"], found["public"]) == ("waiting", 3, False)
        sizes = found["builds"][2]
        assert (sizes["cpuCount"], sizes["memoryMB"], sizes["diskSizeMB"]) == (3, 512, 4096)


async def test_the_older_way_to_register_answers_with_a_template(tmp_path: Path) -> None:
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        answer = await server.client.post("/v2/templates", json={"alias": "old", "cpuCount": 1, "memoryMB": 256})
        assert answer.status_code == 202
        assert (answer.json()["aliases"], answer.json()["cpuCount"], answer.json()["buildStatus"]) == (
            ["old"], 1, "waiting",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status_code", "said"),
    [
        ({}, 400, "Name is required"),
        ({"name": ""}, 400, "Name is required"),
        ({"name": "a b"}, 400, "cannot read template"),
        ({"name": "../x"}, 400, "cannot read template"),
        ({"name": "other/mine"}, 403, "namespace"),
        ({"name": "a", "tags": ["x y"]}, 400, "cannot use the tag"),
        ({"name": "a:6a1f3c9e-0000-4000-8000-000000000002"}, 400, "cannot use the tag"),
        ({"name": "a", "tags": ["6A1F3C9E-0000-4000-8000-000000000002"]}, 400, "cannot use the tag"),
        ({"name": "a", "cpuCount": 0}, 400, "cpuCount"),
        ({"name": "a", "memoryMB": 127}, 400, "memoryMB"),
        ({"name": "a", "memoryMB": 10**6}, 400, "memoryMB"),
        ({"name": "a", "minFreeDiskMb": 10**6}, 400, "diskMB"),
        ({"name": "a", "teamID": "another"}, 400, "Team ID param mismatch with the API key"),
    ],
)
async def test_what_cannot_be_registered_is_refused(
    tmp_path: Path, body: dict[str, Any], status_code: int, said: str
) -> None:
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        code, message = refused(await server.client.post("/v3/templates", json=body))
        assert (code, said in message) == (status_code, True), message


async def test_a_server_without_a_builder_says_so(tmp_path: Path) -> None:
    async with api_server(tmp_path, builds=False) as server:
        assert (await server.client.post("/v3/templates", json={"name": "a"})).status_code == 501


async def test_too_many_open_builds_are_429(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PROJECT_MAX_BUILDS", 1)
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        await request(server)
        answer = await server.client.post("/v3/templates", json={"name": "other"})
        assert (answer.status_code, answer.json()["error_code"]) == (429, "limit_reached")


# --- tags --------------------------------------------------------------------------------------------------


async def test_tags_are_assigned_listed_and_removed(tmp_path: Path) -> None:
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        one, two = await built(server, "mine:v1"), await built(server)
        body = {"target": "default/mine:v1", "tags": ["Stable", "prod"]}
        assigned = await server.client.post("/templates/tags", json=body)
        assert (assigned.status_code, assigned.json()) == (201, {"tags": ["stable", "prod"], "buildID": one["buildID"]})
        listed = (await server.client.get("/templates/default%2Fmine/tags")).json()
        assert {row["tag"]: row["buildID"] for row in listed} == {
            "default": two["buildID"], "prod": one["buildID"], "stable": one["buildID"], "v1": one["buildID"],
        }  # fmt: skip
        assert all(row["createdAt"].endswith("Z") for row in listed)
        removal = {"name": "mine", "tags": ["v1"]}
        gone = await server.client.request("DELETE", "/templates/tags", json=removal)
        assert (gone.status_code, gone.content) == (204, b"")
        assert (await create(server, "mine:v1")).status_code == 404
        assert (await create(server, "mine:stable")).status_code == 201


@pytest.mark.parametrize(
    ("body", "status_code", "said"),
    [
        ({"name": "mine", "tags": []}, 400, "At least one tag is required"),
        ({"name": "mine", "tags": ["default"]}, 400, "Cannot delete the 'default' tag"),
        ({"name": "mine:v1", "tags": ["v1"]}, 400, "give the tags apart"),
        ({"name": "nothing", "tags": ["v1"]}, 404, "not found"),
        ({"name": "mine", "tags": ["v9"]}, 404, "v9"),
        ({"name": "base", "tags": ["v1"]}, 403, "not this project's"),
    ],
)
async def test_tags_that_cannot_be_removed(tmp_path: Path, body: dict[str, Any], status_code: int, said: str) -> None:
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        await built(server)
        code, message = refused(await server.client.request("DELETE", "/templates/tags", json=body))
        assert (code, said in message) == (status_code, True), message


@pytest.mark.parametrize(
    ("body", "status_code"),
    [
        ({"target": "mine", "tags": []}, 400),
        ({"target": "mine", "tags": ["a b"]}, 400),
        ({"target": "mine:v9", "tags": ["a"]}, 404),
        ({"target": "base", "tags": ["a"]}, 403),
    ],
)
async def test_tags_that_cannot_be_assigned(tmp_path: Path, body: dict[str, Any], status_code: int) -> None:
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        await built(server)
        assert refused(await server.client.post("/templates/tags", json=body))[0] == status_code


# --- finding, publishing, deleting -------------------------------------------------------------------------


async def test_an_alias_is_found_by_name_namespace_and_id(tmp_path: Path) -> None:
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        made = await request(server)
        for name in ("mine", "default/mine", "default%2Fmine", "mine:v1", made["templateID"]):
            answer = await server.client.get(f"/templates/aliases/{name}")
            assert answer.json() == {"templateID": made["templateID"], "public": False}, name
        assert (await server.client.get("/templates/aliases/base")).json()["public"] is True
        assert (await server.client.get("/templates/aliases/nothing")).status_code == 404


async def test_a_public_template_starts_for_others_and_is_changed_by_nobody_else(tmp_path: Path) -> None:
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        made, other = await built(server), await server.other_project()
        assert (await create(server, "default/mine", **other)).status_code == 404
        published = await server.client.patch(f"/v2/templates/{made['templateID']}", json={"public": True})
        assert (published.status_code, published.json()) == (200, {"names": ["default/mine"]})
        for name in ("default/mine", made["templateID"]):
            assert (await create(server, name, **other)).status_code == 201
        assert (await create(server, "mine", **other)).status_code == 404
        for method, path, body in (
            ("GET", "/templates/aliases/default/mine", None),
            ("GET", "/templates/default/mine", None),
            ("GET", "/templates/default/mine/tags", None),
            ("GET", "/templates/default/mine/settings/idle", None),
            ("PUT", "/templates/default/mine/settings/idle", {"freezeAfter": 1}),
            ("DELETE", "/templates/default/mine/settings/idle", None),
            ("DELETE", "/templates/default/mine", None),
            ("PATCH", "/v2/templates/default/mine", {"public": False}),
            ("POST", "/templates/tags", {"target": "default/mine", "tags": ["x"]}),
            ("DELETE", "/templates/tags", {"name": "default/mine", "tags": ["x"]}),
            ("POST", "/v3/templates", {"name": "default/mine"}),
            ("GET", f"/templates/{made['templateID']}/builds/{made['buildID']}/status", None),
            ("GET", f"/templates/{made['templateID']}/files/{HASH}", None),
        ):
            answer = await server.client.request(method, path, json=body, headers=other)
            assert (answer.status_code, answer.json()["error_code"]) == (403, "forbidden"), (method, path)
        assert made["templateID"] not in (await server.client.get("/templates", headers=other)).text
        for sandbox in (await server.client.get("/v2/sandboxes", headers=other)).json():
            await server.client.delete(f"/sandboxes/{sandbox['sandboxID']}", headers=other)
        hidden = await server.client.patch("/templates/mine", json={"public": False})
        assert (hidden.status_code, hidden.json()) == (200, {})
        assert (await create(server, "default/mine", **other)).status_code == 404


async def test_a_template_in_use_is_not_deleted(tmp_path: Path) -> None:
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        made = await built(server)
        sandbox = (await create(server, "mine")).json()["sandboxID"]
        answer = await server.client.delete(f"/templates/{made['templateID']}")
        assert (answer.status_code, answer.json()["error_code"]) == (400, "template_in_use")
        await server.client.delete(f"/sandboxes/{sandbox}")
        assert (await server.client.delete(f"/templates/{made['templateID']}")).status_code == 204
        assert (await server.client.delete(f"/templates/{made['templateID']}")).status_code == 404


async def test_what_is_built_in_is_nobody_s_to_change(tmp_path: Path) -> None:
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        assert (await server.client.delete("/templates/base")).status_code == 403
        assert (await server.client.patch("/v2/templates/base", json={"public": False})).status_code == 403
        assert (await server.client.put("/templates/base/settings/idle", json={})).status_code == 403
        assert (await server.client.get("/templates/base")).json()["isDefault"] is True


async def test_a_snapshot_of_a_template_s_name_is_not_deleted_in_its_place(tmp_path: Path) -> None:
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        await built(server)
        sandbox = (await create(server, "base")).json()["sandboxID"]
        for name in ("mine:v1", "other"):
            await server.client.post(f"/sandboxes/{sandbox}/snapshots", json={"name": name})
        assert (await server.client.delete("/templates/mine:v1")).status_code == 204
        assert (await server.client.delete("/templates/mine:default")).status_code == 404
        assert (await server.client.get("/templates/mine")).status_code == 200
        assert (await server.client.delete("/templates/other")).status_code == 204


async def test_lists_have_pages_and_count_use(tmp_path: Path) -> None:
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        for name in ("one", "two", "three"):
            await built(server, name)
        await create(server, "two")
        rows, token = [], None
        while True:
            params = {"limit": 2} | ({"nextToken": token} if token else {})
            page = await server.client.get("/v2/templates", params=params)
            rows += page.json()
            if (token := page.headers.get("x-next-token")) is None:
                break
        assert [row["aliases"] for row in rows] == [["three"], ["two"], ["one"], ["base"]]
        assert (await server.client.get("/templates")).json() == rows
        assert [row["spawnCount"] for row in rows] == [0, 1, 0, 0]
        assert rows[1]["lastSpawnedAt"].endswith("Z")
        assert set(rows[0]) >= {"createdBy", "lastSpawnedAt", "envdVersion", "buildStatus"}
        builds = await server.client.get("/templates/one", params={"limit": 1})
        assert "x-next-token" not in builds.headers
        await request(server, "one")
        builds = await server.client.get("/templates/one", params={"limit": 1})
        following = {"limit": 1, "nextToken": builds.headers["x-next-token"]}
        more = await server.client.get("/templates/one", params=following)
        states = [answer.json()["builds"][0]["status"] for answer in (builds, more)]
        assert (states, more.json()["builds"][0]["finishedAt"][-1]) == (["waiting", "ready"], "Z")


# --- several servers ---------------------------------------------------------------------------------------


async def test_what_another_server_has_is_refused_with_its_name(tmp_path: Path) -> None:
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        await server.store.register_server(Server("elsewhere", "other-host", BASE.created_at))
        there = replace(BASE, id="tthere", project_id=server.project.id, names=("there",), server_id="elsewhere")
        await server.store.put_template(there)
        answer = await create(server, "there")
        assert (answer.status_code, answer.json()["error_code"]) == (503, "server_away")
        assert "other-host" in answer.json()["message"]
        made = await request(server)
        path = f"/v2/templates/{made['templateID']}/builds/{made['buildID']}"
        assert (await server.client.post(path, json={"fromTemplate": "there"})).status_code == 503
        found = await server.store.build(made["templateID"], made["buildID"])
        assert found is not None
        abroad = replace(found, id=str(uuid.uuid4()), server_id="elsewhere", created_at=found.created_at + timedelta(1))
        await server.store.request_build(server.project.id, "mine", abroad)
        path = f"/v2/templates/{made['templateID']}/builds/{abroad.id}"
        answer = await server.client.post(path, json={"fromImage": "a"})
        assert (answer.status_code, answer.json()["error_code"]) == (503, "server_away")


# --- the idle ladder ---------------------------------------------------------------------------------------


async def test_a_template_has_the_ladder_that_its_owner_gives_it_or_the_server_s(tmp_path: Path) -> None:
    async with api_server(tmp_path, builder=FakeBuilder(), idle=("base=5/-/-", "*=-/-/9")) as server:
        await built(server)
        path = "/templates/default%2Fmine/settings/idle"
        of_server = {"diskAfter": 9, "setBy": "server"}
        own = {"freezeAfter": 60, "diskAfter": 1800, "setBy": "template"}
        assert (await server.client.get(path)).json() == of_server
        changed = await server.client.put(path, json={"freezeAfter": 60, "diskAfter": 1800})
        assert (changed.status_code, changed.json()) == (200, own)
        assert (await server.client.get("/templates/mine/settings/idle")).json() == own
        assert (await server.client.put(path, json={})).json() == {"setBy": "template"}
        assert (await server.client.delete(path)).json() == of_server
        assert (await server.client.get("/templates/base/settings/idle")).json()["freezeAfter"] == 5


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"freezeAfter": 0}, "after 1 to"),
        ({"freezeAfter": 9, "diskAfter": 8}, "after the one before"),
        ({"diskAfter": 10**9}, "after 1 to"),
        ({"diskAfter": "9"}, "diskAfter"),
        ({"freezAfter": 9}, "freezAfter"),
    ],
)
async def test_a_ladder_that_is_none_is_refused(tmp_path: Path, body: dict[str, Any], word: str) -> None:
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        await built(server)
        code, message = refused(await server.client.put("/templates/mine/settings/idle", json=body))
        assert code == 400
        assert word in message


# --- audit -------------------------------------------------------------------------------------------------


async def test_every_change_of_a_template_is_written_down(tmp_path: Path) -> None:
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        made = await built(server)
        password = {"type": "registry", "username": "u", "password": "hunter2"}
        again = await request(server)
        await start(server, again, fromImageRegistry=password)
        await ended(server, again)
        await server.client.post("/templates/tags", json={"target": "mine", "tags": ["a"]})
        await server.client.request("DELETE", "/templates/tags", json={"name": "mine", "tags": ["a"]})
        await server.client.patch("/v2/templates/mine", json={"public": True})
        await server.client.put("/templates/mine/settings/idle", json={"freezeAfter": 60})
        await server.client.delete("/templates/mine")
        wanted = [
            Kind.TEMPLATE_CREATE, Kind.TEMPLATE_BUILD, Kind.TEMPLATE_BUILT, Kind.TEMPLATE_CREATE, Kind.TEMPLATE_BUILD,
            Kind.TEMPLATE_BUILT, Kind.TEMPLATE_TAG, Kind.TEMPLATE_TAG, Kind.TEMPLATE_PUBLISH, Kind.TEMPLATE_IDLE,
            Kind.TEMPLATE_DELETE,
        ]  # fmt: skip
        assert [event.kind for event in server.audit.events] == wanted
        assert {event.subject for event in server.audit.events} == {f"template:{made['templateID']}"}
        assert {event.outcome for event in server.audit.events} == {Outcome.ALLOWED, Outcome.OBSERVED}
        assert "hunter2" not in repr(server.audit.events)
