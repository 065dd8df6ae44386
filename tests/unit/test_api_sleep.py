"""Pause, resume and snapshots through the API, over the in-memory engine, guest and store."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.api_server import ApiServer, api_server
from tests.unit.waiting import eventually
from warren.model.errors import EngineFailed
from warren.model.sandbox import EndReason, State
from warren.model.snapshot import SnapshotKind

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


@pytest.fixture
async def server(tmp_path: Path) -> AsyncGenerator[ApiServer]:
    async with api_server(tmp_path) as running:
        yield running


async def create(server: ApiServer, **fields: Any) -> str:
    answer = await server.client.post("/v2/sandboxes", json={"templateID": "base", **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()["sandboxID"]


async def post(server: ApiServer, sandbox: str, verb: str, **body: Any) -> httpx.Response:
    version = "/v2" if verb == "connect" else ""
    return await server.client.post(f"{version}/sandboxes/{sandbox}/{verb}", json=body)


async def paused(server: ApiServer, pause: dict[str, Any] | None = None, **fields: Any) -> str:
    sandbox = await create(server, **fields)
    answer = await post(server, sandbox, "pause", **(pause or {}))
    assert answer.status_code == 204, answer.text
    return sandbox


async def detail(server: ApiServer, sandbox: str) -> dict[str, Any]:
    return (await server.client.get(f"/sandboxes/{sandbox}")).json()


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error_code"]


async def kept(server: ApiServer) -> list[SnapshotKind]:
    return [checkpoint.kind for checkpoint in await server.engine.checkpoints()]


# --- pause -------------------------------------------------------------------------------------------------


async def test_a_paused_sandbox_is_on_disk_and_nowhere_else(server: ApiServer) -> None:
    sandbox = await paused(server)
    assert await server.engine.list() == []
    assert await kept(server) == [SnapshotKind.MEMORY]
    assert server.control.live.find(sandbox) is None
    found = await detail(server, sandbox)
    assert (found["state"], found["pauseMode"], found["pausedIn"]) == ("paused", "full", "disk")


async def test_a_pause_without_memory_says_so(server: ApiServer) -> None:
    sandbox = await paused(server, {"memory": False})
    assert await kept(server) == [SnapshotKind.FILESYSTEM]
    assert (await detail(server, sandbox))["pauseMode"] == "filesystem"


async def test_a_second_pause_is_409_and_so_is_what_needs_it_awake(server: ApiServer) -> None:
    sandbox = await paused(server)
    for verb, body in (("pause", {}), ("fork", {}), ("snapshots", {}), ("timeout", {"timeout": 5})):
        assert code(await post(server, sandbox, verb, **body)) == (409, "sandbox_paused"), verb


async def test_of_many_pauses_at_once_one_wins(server: ApiServer) -> None:
    sandbox = await create(server)
    answers = await asyncio.gather(*(post(server, sandbox, "pause") for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [204, 409, 409, 409, 409]
    assert len(await kept(server)) == 1


async def test_a_runtime_without_memory_freezes_and_says_so(server: ApiServer) -> None:
    sandbox = await paused(server, runtime="crun")
    assert server.engine.is_still(sandbox)
    assert await kept(server) == []
    found = await detail(server, sandbox)
    assert (found["state"], found["pauseMode"], found["pausedIn"]) == ("paused", "full", "memory")
    assert (await post(server, sandbox, "connect")).status_code == 201
    assert not server.engine.is_still(sandbox)


async def test_a_durable_pause_is_refused_where_only_freezing_is_possible(server: ApiServer) -> None:
    sandbox = await create(server, runtime="crun")
    answer = await post(server, sandbox, "pause", durable=True)
    assert code(answer) == (400, "bad_request")
    assert "crun" in answer.json()["message"]
    assert (await detail(server, sandbox))["state"] == "running"
    assert (await post(server, sandbox, "pause", durable=True, memory=False)).status_code == 204


async def test_a_silent_guest_is_remembered_or_refused(server: ApiServer) -> None:
    strict, files, plain = [await create(server) for _ in range(3)]
    server.guest.silent = True
    assert code(await post(server, strict, "pause", requireHealthyGuest=True)) == (503, "guest_silent")
    assert code(await post(server, files, "pause", memory=False)) == (503, "guest_silent")
    assert (await post(server, plain, "pause")).status_code == 204
    server.guest.silent = False
    assert (await detail(server, strict))["state"] == "running"
    assert (await detail(server, plain))["envdUnresponsiveAtPause"] is True
    assert code(await post(server, plain, "connect")) == (409, "sandbox_snapshot_guest_agent_unresponsive")
    assert (await post(server, plain, "connect", memory=False)).status_code == 201


async def test_after_a_pause_that_fails_the_sandbox_runs_on(server: ApiServer) -> None:
    sandbox = await create(server)
    server.engine.machine.is_full = True
    assert code(await post(server, sandbox, "pause")) == (507, "no_space")
    server.engine.machine.is_full = False
    assert (await detail(server, sandbox))["state"] == "running"
    assert server.control.live.find(sandbox) is not None
    server.engine.kill_guest(sandbox)  # and its death is still noticed
    await eventually(lambda: _is_gone(server, sandbox, EndReason.DIED))


async def _is_gone(server: ApiServer, sandbox: str, reason: EndReason) -> bool:
    row = await server.store.sandbox(server.project.id, sandbox)
    return row is not None and (row.state, row.end_reason) == (State.GONE, reason)


async def test_pauses_stop_at_the_project_s_limit_of_disk(server: ApiServer) -> None:
    headers = await server.other_project(snapshot_mb=1)
    first, second = [
        (await server.client.post("/v2/sandboxes", json={"templateID": "base"}, headers=headers)).json()["sandboxID"]
        for _ in range(2)
    ]
    assert (await server.client.post(f"/sandboxes/{first}/pause", headers=headers)).status_code == 204
    refused = await server.client.post(f"/sandboxes/{second}/pause", headers=headers)
    assert code(refused) == (429, "limit_reached")
    assert "snapshot_mb" in refused.json()["message"]
    assert code(await server.client.post(f"/sandboxes/{second}/snapshots", headers=headers)) == (429, "limit_reached")


# --- resume ------------------------------------------------------------------------------------------------


async def test_connect_resumes_under_the_same_identity_and_forgets_the_checkpoint(server: ApiServer) -> None:
    sandbox = await paused(server, envVars={"A": "1"}, metadata={"k": "v"})
    answer = await post(server, sandbox, "connect", timeout=1000)
    assert answer.status_code == 201
    assert answer.json()["envdAccessToken"] == server.guest.identities[sandbox].access_token
    identity = server.guest.identities[sandbox]
    assert (identity.envs, identity.authority, identity.is_copy, identity.recalls_envs) == (None, None, False, False)
    found = await detail(server, sandbox)
    assert (found["state"], found["metadata"]) == ("running", {"k": "v"})
    assert "pauseMode" not in found
    left = datetime.fromisoformat(found["endAt"]) - datetime.fromisoformat(found["startedAt"])
    assert left.total_seconds() > 900
    assert await kept(server) == []
    assert (await post(server, sandbox, "connect")).status_code == 200


async def test_a_boot_from_files_recalls_the_environment_that_the_guest_kept(server: ApiServer) -> None:
    for pause, connect in (({"memory": False}, {}), ({}, {"memory": False})):
        sandbox = await paused(server, pause, envVars={"A": "1"})
        assert len(server.guest.retained) > 0
        assert (await post(server, sandbox, "connect", **connect)).status_code == 201
        identity = server.guest.identities[sandbox]
        assert (identity.envs, identity.recalls_envs) == (None, True)


async def test_concurrent_resumes_join(server: ApiServer) -> None:
    sandbox = await paused(server)
    answers = await asyncio.gather(*(post(server, sandbox, "connect") for _ in range(5)))
    assert {answer.status_code for answer in answers} <= {200, 201}
    assert [placement.id for placement in await server.engine.list()] == [sandbox]


async def test_the_quota_holds_at_resume_and_not_while_asleep(server: ApiServer) -> None:
    headers = await server.other_project(sandboxes=1)

    async def ask(method: str, path: str, **body: Any) -> httpx.Response:
        return await server.client.request(method, path, json=body, headers=headers)

    first = (await ask("POST", "/v2/sandboxes", templateID="base")).json()["sandboxID"]
    assert (await ask("POST", f"/sandboxes/{first}/pause")).status_code == 204
    second = (await ask("POST", "/v2/sandboxes", templateID="base")).json()["sandboxID"]
    assert code(await ask("POST", f"/v2/sandboxes/{first}/connect")) == (429, "limit_reached")
    assert (await ask("GET", f"/sandboxes/{first}")).json()["state"] == "paused"
    assert (await ask("DELETE", f"/sandboxes/{second}")).status_code == 204
    assert (await ask("POST", f"/v2/sandboxes/{first}/connect")).status_code == 201


async def test_a_resume_that_fails_leaves_it_paused(server: ApiServer) -> None:
    sandbox = await paused(server)
    server.engine.fail_next = "no luck"
    assert (await post(server, sandbox, "connect")).status_code == 500
    assert (await detail(server, sandbox))["state"] == "paused"
    server.guest.silent = True
    assert (await post(server, sandbox, "connect")).status_code == 504
    assert await server.engine.list() == []
    server.guest.silent = False
    assert (await post(server, sandbox, "connect")).status_code == 201


async def test_a_checkpoint_of_another_build_offers_its_files(server: ApiServer) -> None:
    sandbox = await paused(server)
    server.engine.machine.build = "fake-2"
    answer = await post(server, sandbox, "connect")
    assert code(answer) == (409, "checkpoint_unusable")
    assert (await detail(server, sandbox))["state"] == "paused"
    assert (await post(server, sandbox, "connect", memory=False)).status_code == 201


async def test_kill_takes_the_checkpoint_along(server: ApiServer) -> None:
    for runtime in ("runsc", "crun"):
        sandbox = await paused(server, runtime=runtime)
        assert (await server.client.delete(f"/sandboxes/{sandbox}")).status_code == 204
        assert (await kept(server), await server.engine.list()) == ([], [])
        assert (await server.client.get(f"/sandboxes/{sandbox}")).status_code == 404
        assert (await post(server, sandbox, "connect")).status_code == 404


async def test_older_clients_resume_what_sleeps_and_nothing_else(server: ApiServer) -> None:
    sandbox = await paused(server)
    assert (await post(server, sandbox, "resume", timeout=60)).status_code == 201
    assert code(await post(server, sandbox, "resume")) == (409, "conflict")


async def test_lists_show_what_sleeps_by_state(server: ApiServer) -> None:
    sleeping, running = await paused(server), await create(server)

    async def listed(query: str) -> list[tuple[str, str]]:
        answer = await server.client.get("/v2/sandboxes", params={"state": query} if query else None)
        return [(row["sandboxID"], row["state"]) for row in answer.json()]

    assert await listed("paused") == [(sleeping, "paused")]
    assert await listed("running") == [(running, "running")]
    assert await listed("running,paused") == await listed("") == [(running, "running"), (sleeping, "paused")]
    assert [row["sandboxID"] for row in (await server.client.get("/sandboxes")).json()] == [running]


# --- lifecycle ---------------------------------------------------------------------------------------------


async def _has_state(server: ApiServer, sandbox: str, state: str) -> bool:
    return (await detail(server, sandbox)).get("state") == state


@pytest.mark.parametrize(("memory", "mode"), [(True, "full"), (False, "filesystem")])
async def test_the_deadline_pauses_where_the_owner_wished_so(server: ApiServer, memory: bool, mode: str) -> None:
    sandbox = await create(server, autoPause=True, autoPauseMemory=memory)
    assert (await detail(server, sandbox))["lifecycle"] == {"autoResume": False, "onTimeout": "pause"}
    assert (await post(server, sandbox, "timeout", timeout=0)).status_code == 204
    await eventually(lambda: _has_state(server, sandbox, "paused"))
    assert (await detail(server, sandbox))["pauseMode"] == mode
    assert (await post(server, sandbox, "connect")).status_code == 201


async def test_what_cannot_go_to_disk_at_the_deadline_is_frozen_and_never_lost(server: ApiServer) -> None:
    sandbox = await create(server, autoPause=True)
    server.engine.machine.is_full = True
    await post(server, sandbox, "timeout", timeout=0)
    await eventually(lambda: _has_state(server, sandbox, "paused"))
    assert (await detail(server, sandbox))["pausedIn"] == "memory"
    logs = (await server.client.get(f"/v2/sandboxes/{sandbox}/logs")).json()["logs"]
    assert any("cannot pause to disk" in entry["message"] for entry in logs)
    assert (await post(server, sandbox, "connect")).status_code == 201


@pytest.mark.parametrize(
    "fields",
    [
        {"autoResume": {"enabled": True}},
        {"autoPauseMemory": False},
        {"autoPause": True, "autoPauseMemory": False, "autoResume": {"enabled": True}},
    ],
)
async def test_a_lifecycle_that_makes_no_sense_is_400(server: ApiServer, fields: dict[str, Any]) -> None:
    answer = await server.client.post("/v2/sandboxes", json={"templateID": "base", **fields})
    assert answer.status_code == 400


async def test_traffic_wakes_only_what_may_be_woken(server: ApiServer) -> None:
    lifecycle = {"autoPause": True, "autoResume": {"enabled": True}}
    woken, deaf = await paused(server, timeout=10, **lifecycle), await paused(server)
    files = await paused(server, {"memory": False}, **lifecycle)
    waking = server.control.waking
    for sandbox in (deaf, files, "i" + "0" * 20):
        assert await waking.asleep(sandbox) is None
    asleep = await waking.asleep(woken)
    assert asleep is not None
    assert asleep.access_token is not None
    routes = await asyncio.gather(*(waking.wake(woken) for _ in range(3)))
    assert {route.sandbox_id for route in routes} == {woken}
    found = await detail(server, woken)
    left = datetime.fromisoformat(found["endAt"]) - datetime.fromisoformat(found["startedAt"])
    assert left.total_seconds() >= 300


async def test_traffic_wakes_nothing_of_a_project_whose_keys_are_revoked(server: ApiServer) -> None:
    sandbox = await paused(server, autoPause=True, autoResume={"enabled": True})
    keys = server.control.context.keys
    for key in await keys.list(server.project):
        await keys.revoke(server.project, key.id)
    with pytest.raises(Exception, match="no key of its project"):
        await server.control.waking.wake(sandbox)


# --- snapshots ---------------------------------------------------------------------------------------------


async def test_a_snapshot_starts_any_number_of_sandboxes_and_its_source_goes_on(server: ApiServer) -> None:
    source = await create(server, envVars={"SECRET": "x"}, memoryMB=512)
    taken = await post(server, source, "snapshots")
    assert taken.status_code == 201
    snapshot = taken.json()["snapshotID"]
    copies = [await create(server, templateID=snapshot, envVars={"B": "2"}) for _ in range(2)]
    for copy in copies:
        identity = server.guest.identities[copy]
        assert (identity.envs, identity.is_copy) == ({"B": "2"}, True)
        assert identity.authority == server.guest.identities[source].control_token
        assert (await detail(server, copy))["memoryMB"] == 512
    assert len({server.guest.identities[each].access_token for each in (source, *copies)}) == 3
    assert server.control.live.find(source) is not None


async def test_a_copy_starts_as_its_snapshot_was_taken(server: ApiServer) -> None:
    source = await create(server)
    snapshot = (await post(server, source, "snapshots")).json()["snapshotID"]
    for fields in ({"runtime": "crun"}, {"memoryMB": 2048}):
        answer = await server.client.post("/v2/sandboxes", json={"templateID": snapshot, **fields})
        assert code(answer) == (400, "bad_request")


async def test_names_have_versions_and_the_newest_holds_the_name(server: ApiServer) -> None:
    source = await create(server)

    async def take(name: str) -> dict[str, Any]:
        answer = await post(server, source, "snapshots", name=name)
        assert answer.status_code == 201, answer.text
        return answer.json()

    first, second, tagged = await take("one"), await take("one"), await take("default/one:v2")
    assert first["names"] == second["names"] == ["default/one:default"]
    assert (tagged["snapshotID"], tagged["names"]) == ("default/one:v2", ["default/one:v2"])
    listed = (await server.client.get("/snapshots")).json()
    assert [row["names"] for row in listed] == [["default/one:v2"], ["default/one:default"], []]
    oldest = listed[2]["snapshotID"]
    for reference in ("one", "default/one", "one:default", "one:v2", oldest):
        await create(server, templateID=reference)
    for reference in ("one:v3", "other/one", "s" + "0" * 20):
        answer = await server.client.post("/v2/sandboxes", json={"templateID": reference})
        assert answer.status_code == 404
    assert (await post(server, source, "snapshots", name="not/mine:x")).status_code == 400


async def test_snapshots_are_listed_by_source_by_name_and_in_pages(server: ApiServer) -> None:
    one, other = await create(server), await create(server)
    for number in range(3):
        await post(server, one, "snapshots", name=f"n{number}")
    await post(server, other, "snapshots")
    by_source = await server.client.get("/snapshots", params={"sandboxID": one, "limit": 2})
    assert len(by_source.json()) == 2
    rest = await server.client.get(
        "/snapshots", params={"sandboxID": one, "nextToken": by_source.headers["x-next-token"]}
    )
    assert [row["names"] for row in rest.json()] == [["default/n0:default"]]
    assert "x-next-token" not in rest.headers
    assert len((await server.client.get("/snapshots", params={"name": "n1"})).json()) == 1
    assert (await server.client.get("/snapshots", params={"name": "no such"})).json() == []
    assert (await server.client.get("/snapshots", params={"nextToken": "x"})).status_code == 400


async def test_a_deleted_snapshot_is_gone_from_the_disk_and_copies_go_on(server: ApiServer) -> None:
    source = await create(server)
    snapshot = (await post(server, source, "snapshots", name="one:v1")).json()["snapshotID"]
    copy = await create(server, templateID=snapshot)
    stranger = await server.other_project()
    path = "/templates/" + snapshot.replace("/", "%2F").replace(":", "%3A")
    assert (await server.client.delete(path, headers=stranger)).status_code == 404
    assert (await server.client.delete(path)).status_code == 204
    assert (await server.client.delete(path)).status_code == 404
    assert await kept(server) == []
    assert (await detail(server, copy))["state"] == "running"


async def test_another_project_finds_no_snapshot(server: ApiServer) -> None:
    source = await create(server)
    snapshot = (await post(server, source, "snapshots", name="one")).json()["snapshotID"]
    stranger = await server.other_project()
    assert (await server.client.get("/snapshots", headers=stranger)).json() == []
    for reference in (snapshot, "one"):
        answer = await server.client.post("/v2/sandboxes", json={"templateID": reference}, headers=stranger)
        assert answer.status_code == 404


async def test_under_a_runtime_without_memory_a_snapshot_has_files_alone(server: ApiServer) -> None:
    source = await create(server, runtime="crun")
    assert (await post(server, source, "snapshots")).json()["mode"] == "filesystem"
    assert (await post(server, source, "snapshots", memory=True)).status_code == 400


# --- what is left behind ------------------------------------------------------------------------------------


async def test_the_sweep_deletes_what_nothing_stands_on(server: ApiServer) -> None:
    sleeping, source = await paused(server), await create(server)
    await post(server, source, "snapshots")
    orphan = "c" + "o" * 20
    await server.engine.checkpoint(source, orphan, SnapshotKind.MEMORY, hold=False)
    await server.control.supervision.sweep()
    left = {checkpoint.sandbox_id: checkpoint.id for checkpoint in await server.engine.checkpoints()}
    assert set(left) == {sleeping, source}
    assert orphan not in left.values()


async def test_a_frozen_sandbox_that_dies_is_noticed(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = [await paused(server, runtime="crun") for _ in range(2)]
    server.engine.kill_guest(first)
    await server.control.supervision.sweep()
    await eventually(lambda: _is_gone(server, first, EndReason.DIED))
    server.engine.kill_guest(second)
    assert (await post(server, second, "connect")).status_code in (404, 500)
    await eventually(lambda: _is_gone(server, second, EndReason.DIED))


async def test_a_checkpoint_that_cannot_be_deleted_is_deleted_by_the_sweep(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_: str) -> None:
        raise EngineFailed("cannot delete it: not today")

    sandbox = await paused(server)
    with monkeypatch.context() as broken:
        broken.setattr(server.engine, "forget", refuse)
        assert (await server.client.delete(f"/sandboxes/{sandbox}")).status_code == 204
        assert len(await kept(server)) == 1
    await server.control.supervision.sweep()
    assert await kept(server) == []
