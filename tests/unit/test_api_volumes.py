"""Volumes over the API, in memory: bad input, who has them, what a crash leaves, other servers."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.api_server import ApiServer, api_server
from warren.model import limits
from warren.model.audit import Kind, Outcome
from warren.model.errors import EngineFailed, VolumeInUse
from warren.model.server import Server
from warren.model.volume import Attributes, Volume

pytestmark = pytest.mark.anyio
SMALL = {"sizeMB": 16}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncGenerator[ApiServer]:
    async with api_server(tmp_path) as running:
        yield running


async def make(server: ApiServer, name: str = "shared") -> dict[str, Any]:
    answer = await server.client.post("/volumes", json={"name": name, **SMALL})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def ask(server: ApiServer, volume: dict[str, Any], method: str, what: str, **options: Any) -> httpx.Response:
    query = {"path": "/", **options.pop("query", {})}
    headers = {"Authorization": f"Bearer {volume['token']}", **options.pop("headers", {})}
    path = f"/volumecontent/{volume['volumeID']}/{what}"
    return await server.client.request(method, path, params=query, headers=headers, **options)


@pytest.mark.parametrize(
    ("method", "what", "query", "body", "status", "code"),
    [
        ("GET", "path", {"path": "/none"}, None, 404, "path_not_found"),
        ("GET", "path", {"path": "a\0b"}, None, 400, "bad_request"),
        ("GET", "path", {"path": "x" * 5000}, None, 400, "bad_request"),
        ("GET", "path", {"path": "/x" * 300}, None, 400, "bad_request"),
        ("GET", "dir", {"depth": "0"}, None, 400, "bad_request"),
        ("GET", "dir", {"depth": "1000"}, None, 400, "bad_request"),
        ("GET", "dir", {"depth": "x"}, None, 400, "bad_request"),
        ("GET", "file", {}, None, 400, "bad_request"),
        ("POST", "dir", {"path": "/d", "uid": "-1"}, None, 400, "bad_request"),
        ("POST", "dir", {"path": "/d", "gid": "65536"}, None, 400, "bad_request"),
        ("POST", "dir", {"path": "/d", "mode": str(0o4755)}, None, 400, "bad_request"),
        ("POST", "dir", {"path": "/d", "mode": "9" * 400}, None, 400, "bad_request"),
        ("POST", "dir", {"path": "/"}, None, 409, "already_exists"),
        ("POST", "dir", {"path": "/d", "force": "perhaps"}, None, 400, "bad_request"),
        ("PATCH", "path", {}, {"mode": 0o2755}, 400, "bad_request"),
        ("PATCH", "path", {}, {"uid": "x"}, 400, "bad_request"),
        ("PATCH", "path", {}, [], 400, "bad_request"),
        ("DELETE", "path", {}, None, 400, "bad_request"),
        ("PUT", "file", {}, None, 400, "bad_request"),
        ("PUT", "file", {"path": "/none/x"}, None, 404, "path_not_found"),
        ("PUT", "file", {"path": "/x", "uid": "99999999999999999999"}, None, 400, "bad_request"),
    ],
)
async def test_bad_input_is_refused_by_name(
    server: ApiServer, method: str, what: str, query: dict[str, str], body: object, status: int, code: str
) -> None:
    volume = await make(server)
    options = {} if body is None else {"json": body}
    answer = await ask(server, volume, method, what, query=query, **options)
    assert (answer.status_code, answer.json()["code"], answer.json()["error_code"]) == (status, code, code)
    assert (await ask(server, volume, "GET", "dir", query={"depth": "9"})).json() == []


async def test_dots_end_at_the_root(server: ApiServer) -> None:
    volume = await make(server)
    for path in ("../../a", "/./a", "//a", "/x/../a", "a/", "/../../../a/."):
        written = await ask(server, volume, "PUT", "file", query={"path": path}, content=path.encode())
        assert (written.status_code, written.json()["path"]) == (201, "/a")
    assert (await ask(server, volume, "GET", "file", query={"path": "/a"})).content == b"/../../../a/."


async def test_a_file_has_no_limit_and_other_bodies_do(server: ApiServer) -> None:
    volume = await make(server)
    large = b"x" * (3 * limits.MAX_BODY_BYTES + 5)
    assert (await ask(server, volume, "PUT", "file", query={"path": "/a"}, content=large)).json()["size"] == len(large)
    assert (await ask(server, volume, "GET", "file", query={"path": "/a"})).content == large
    refused = await ask(server, volume, "PATCH", "path", content=large, headers={"Content-Type": "application/json"})
    assert refused.status_code == 413


async def test_so_many_calls_at_once_and_no_more(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "VOLUME_CALLS_AT_ONCE", 2)
    volume, gate, begun = await make(server), asyncio.Event(), asyncio.Semaphore(0)

    async def slow() -> AsyncIterator[bytes]:
        begun.release()
        await gate.wait()
        yield b"x"

    files = server.control.context.volume_files
    held = await files.open(volume["volumeID"], volume["token"])
    async with asyncio.TaskGroup() as group:
        for number in range(2):
            group.create_task(_write(server, held, f"/{number}", slow()))
        for _ in range(2):
            await begun.acquire()
        refused = await ask(server, volume, "GET", "path")
        gate.set()
    assert (refused.status_code, refused.json()["code"]) == (429, "limit_reached")
    assert (await ask(server, volume, "GET", "path")).status_code == 200


async def _write(server: ApiServer, held: Volume, path: str, content: AsyncIterator[bytes]) -> None:
    await server.control.context.volume_files.write(held, path, content, Attributes(), force=False)


async def test_an_upload_that_stalls_is_given_up(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "VOLUME_STALL_S", 0.01)
    volume = await make(server)

    async def stalling() -> AsyncIterator[bytes]:
        yield b"half"
        await asyncio.Event().wait()

    answer = await ask(server, volume, "PUT", "file", query={"path": "/a"}, content=stalling())
    assert (answer.status_code, answer.json()["code"]) == (504, "timeout")
    assert (await ask(server, volume, "GET", "dir")).json() == []


async def test_a_token_of_a_deleted_volume_opens_nothing(server: ApiServer) -> None:
    volume = await make(server)
    assert (await server.client.delete(f"/volumes/{volume['volumeID']}")).status_code == 204
    answer = await ask(server, volume, "GET", "path")
    assert (answer.status_code, answer.json()["code"]) == (404, "volume_not_found")


async def test_quotas_of_the_project_are_named(server: ApiServer) -> None:
    for limit, name in (({"volumes": 1}, "(volumes)"), ({"volume_mb": 20}, "(volume_mb)")):
        await server.store.add_project(replace(server.project, id=f"p-{name}", name=name))
        project = replace(server.project, id=f"p-{name}", limits=replace(server.project.limits, **limit))
        await server.control.context.volumes.create(project, "one", 16)
        with pytest.raises(Exception, match=name.replace("(", r"\(").replace(")", r"\)")):
            await server.control.context.volumes.create(project, "two", 16)


async def test_what_could_not_be_made_leaves_no_name(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise EngineFailed("cannot make it")

    with monkeypatch.context() as patch:
        patch.setattr(server.engine.volumes, "make", broken)
        assert (await server.client.post("/volumes", json={"name": "shared", **SMALL})).status_code == 500
    await make(server)


async def test_a_crash_half_way_is_cleared_at_the_next_start(server: ApiServer) -> None:
    made, lost = (
        await make(server),
        Volume("v" + "1" * 20, server.project.id, "lost", 16, server.project.created_at, server.control.server_id),
    )
    await server.store.add_volume(lost, server.project.limits)
    await server.engine.volumes.make(lost.id, 16)
    await server.store.claim_volume_removal(made["volumeID"])
    await server.control.context.volumes.recover()
    assert await server.engine.volumes.volumes() == []
    assert await server.store.unfinished_volumes(server.control.server_id) == []


async def test_files_in_use_keep_a_volume(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def busy(*_: object) -> None:
        raise VolumeInUse

    made = await make(server)
    with monkeypatch.context() as patch:
        patch.setattr(server.engine.volumes, "remove", busy)
        assert (await server.client.delete(f"/volumes/{made['volumeID']}")).status_code == 409
    assert (await server.client.get("/volumes")).json() == [{key: made[key] for key in ("volumeID", "name", "sizeMB")}]
    assert (await server.client.delete(f"/volumes/{made['volumeID']}")).status_code == 204


async def test_a_volume_of_another_server_is_named_not_touched(server: ApiServer) -> None:
    other = Server("other-server", "far", server.project.created_at)
    await server.store.register_server(other)
    away = Volume("v" + "2" * 20, server.project.id, "away", 16, server.project.created_at, other.id)
    await server.store.add_volume(away, server.project.limits)
    await server.store.mark_volume_ready(away.id)
    mounts = {"templateID": "base", "volumeMounts": [{"name": "away", "path": "/v"}]}
    for answer in (
        await server.client.get(f"/volumes/{away.id}"),
        await server.client.delete(f"/volumes/{away.id}"),
        await server.client.post("/v2/sandboxes", json=mounts),
    ):
        assert (answer.status_code, answer.json()["error_code"]) == (503, "server_away")
        assert "'far'" in answer.json()["message"]
    assert [one["name"] for one in (await server.client.get("/volumes")).json()] == ["away"]


async def test_copies_keep_the_volumes_of_their_source(server: ApiServer) -> None:
    made, other = await make(server), await make(server, "other")
    mounts = [{"name": "shared", "path": "/v", "readOnly": True}]
    box = (await server.client.post("/v2/sandboxes", json={"templateID": "base", "volumeMounts": mounts})).json()
    taken = (await server.client.post(f"/sandboxes/{box['sandboxID']}/snapshots", json={})).json()["snapshotID"]
    files = (await server.client.post(f"/sandboxes/{box['sandboxID']}/snapshots", json={"memory": False})).json()
    fork = (await server.client.post(f"/sandboxes/{box['sandboxID']}/fork", json={})).json()[0]["sandbox"]
    copy = (await server.client.post("/v2/sandboxes", json={"templateID": taken})).json()
    for one in (box, fork, copy):
        assert (await server.client.get(f"/sandboxes/{one['sandboxID']}")).json()["volumeMounts"] == mounts
    elsewhere = [{"name": "other", "path": "/w"}]
    refused = await server.client.post("/v2/sandboxes", json={"templateID": taken, "volumeMounts": elsewhere})
    assert (refused.status_code, "volumes of a copy" in refused.json()["message"]) == (400, True)
    changed = await server.client.post(
        "/v2/sandboxes", json={"templateID": files["snapshotID"], "volumeMounts": elsewhere}
    )
    assert changed.status_code == 201
    for one in (box, fork, copy, changed.json()):
        await server.client.delete(f"/sandboxes/{one['sandboxID']}")
    for one in (made, other):
        assert (await server.client.delete(f"/volumes/{one['volumeID']}")).status_code == 204
    gone = await server.client.post("/v2/sandboxes", json={"templateID": taken})
    assert (gone.status_code, "no such volume" in gone.json()["message"]) == (400, True)


async def test_changes_are_in_the_audit_log_and_tokens_are_not(server: ApiServer) -> None:
    volume = await make(server)
    await ask(server, volume, "PUT", "file", query={"path": "/a"}, content=b"x")
    await ask(server, volume, "GET", "file", query={"path": "/a"})
    await ask(server, {**volume, "token": "0" * 64}, "DELETE", "path", query={"path": "/a"})
    await server.client.delete(f"/volumes/{volume['volumeID']}")
    subject = f"volume:{volume['volumeID']}"
    assert [(event.kind, event.outcome, event.subject) for event in server.audit.events] == [
        (Kind.VOLUME_CREATE, Outcome.ALLOWED, subject),
        (Kind.VOLUME_CONTENT, Outcome.ALLOWED, subject),
        (Kind.AUTH_REFUSED, Outcome.REFUSED, ""),
        (Kind.VOLUME_DELETE, Outcome.ALLOWED, subject),
    ]
    assert server.audit.events[1].project == server.project.id
    assert volume["token"] not in repr(server.audit.events)
