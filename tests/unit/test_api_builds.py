"""Builds over REST: what they are asked to do, their logs, and every way they end (wire contract 2.3, 6.3.3)."""

import asyncio
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.api_server import BASE, ApiServer, api_server
from tests.unit.build_rig import BUILT, FakeBuilder, begun, built, ended, request, start, status
from warren.contracts.building import BuildOrder, Say
from warren.model import limits
from warren.model.build import AwsKeys, Built, LogLevel, RegistryLogin, Step, StepKind
from warren.model.errors import BuildFailed, NoSpace

pytestmark = pytest.mark.anyio
HASH = "a1" * 32


def refused(answer: httpx.Response) -> tuple[int, str]:
    assert answer.json()["code"] == answer.status_code
    return answer.status_code, answer.json()["message"]


async def create(server: ApiServer, template: str, **headers: str) -> httpx.Response:
    return await server.client.post("/v2/sandboxes", json={"templateID": template}, headers=headers)


# --- building ----------------------------------------------------------------------------------------------


async def test_a_build_runs_what_was_asked_and_starts_sandboxes(tmp_path: Path) -> None:
    builder = FakeBuilder()
    async with api_server(tmp_path, builder=builder) as server:
        made = await request(server, cpuCount=1)
        await start(
            server, made, fromImage="registry.test/a:1", force=True, startCmd="serve", readyCmd="true",
            fromImageRegistry={"type": "registry", "username": "u", "password": "p"},
            steps=[
                {"type": "RUN", "args": ["make", ""]},
                {"type": "RUN", "args": ["make", "root"], "force": True},
                {"type": "COPY", "args": ["a", "b"], "filesHash": HASH},
                {"type": "ENV", "args": ["A", "1", "B", ""]},
                {"type": "WORKDIR", "args": ["/srv"]},
                {"type": "USER", "args": ["root", "true"]},
            ],
        )  # fmt: skip
        assert (await ended(server, made))["status"] == "ready"
        (order,) = builder.orders
        recipe = order.recipe
        assert (order.id, order.template_id, order.project.id) == (
            made["buildID"],
            made["templateID"],
            server.project.id,
        )
        assert (recipe.from_image, recipe.login, recipe.force) == ("registry.test/a:1", RegistryLogin("u", "p"), True)
        assert (recipe.start_command, recipe.ready_command, order.resources.cpu_count) == ("serve", "true", 1)
        assert recipe.steps == (
            Step(StepKind.RUN, ("make",)),
            Step(StepKind.RUN, ("make", "root"), force=True),
            Step(StepKind.COPY, ("a", "b", "", ""), HASH),
            Step(StepKind.ENV, ("A", "1", "B", "")),
            Step(StepKind.WORKDIR, ("/srv",)),
            Step(StepKind.USER, ("root",)),
        )
        for name in ("mine", "default/mine", "mine:default", made["templateID"]):
            sandbox = await create(server, name)
            assert (sandbox.status_code, sandbox.json()["templateID"]) == (201, made["templateID"]), sandbox.text
        row = await server.store.sandbox(server.project.id, sandbox.json()["sandboxID"])
        assert row is not None and (row.digest, row.resources.cpu_count) == (BUILT.digest, 1)


async def test_a_sandbox_has_its_template_s_user_directory_and_variables_under_its_own(tmp_path: Path) -> None:
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        await built(server)
        wanted = {"templateID": "mine", "envVars": {"FROM": "request", "X": "1"}}
        made = (await server.client.post("/v2/sandboxes", json=wanted)).json()
        identity = server.guest.identities[made["sandboxID"]]
        assert (identity.default_user, identity.default_workdir) == ("root", "/srv")
        assert identity.envs == {"PATH": "/opt/bin:/bin", "FROM": "request", "X": "1"}
        snapshot = (await server.client.post(f"/sandboxes/{made['sandboxID']}/snapshots")).json()
        copy = (await create(server, snapshot["snapshotID"])).json()["sandboxID"]
        assert server.guest.identities[copy].envs == {"PATH": "/opt/bin:/bin", "FROM": "template"}


@pytest.mark.parametrize(
    ("body", "status_code", "said"),
    [
        ({}, 400, "exactly one of fromImage and fromTemplate"),
        ({"fromImage": "a", "fromTemplate": "base"}, 400, "exactly one of fromImage and fromTemplate"),
        ({"fromTemplate": "nothing"}, 404, "template 'nothing' not found"),
        ({"fromImage": "a", "steps": [{"type": "FETCH", "args": []}]}, 400, "'FETCH'"),
        ({"fromImage": "a", "steps": [{"type": "RUN", "args": []}]}, 400, "RUN"),
        ({"fromImage": "a", "steps": [{"type": "RUN", "args": ["\0"]}]}, 400, "NUL"),
        ({"fromImage": "a", "steps": [{"type": "ENV", "args": ["A"]}]}, 400, "ENV"),
        ({"fromImage": "a", "steps": [{"type": "COPY", "args": ["a", "b"]}]}, 400, "filesHash"),
        ({"fromImage": "a", "steps": [{"type": "COPY", "args": ["a", "b"], "filesHash": "../x"}]}, 400, "filesHash"),
        ({"fromImage": "a", "steps": [{"type": "COPY", "args": ["a", "b", "", "9"], "filesHash": HASH}]}, 400, "'9'"),
        ({"fromImage": "a", "fromImageRegistry": {"type": "other"}}, 400, "fromImageRegistry"),
        ({"fromImage": "a", "fromImageRegistry": {"type": "gcp", "serviceAccountJson": "{"}}, 400, "no JSON"),
        (
            {
                "fromImage": "a",
                "fromImageRegistry": {
                    "type": "aws", "awsAccessKeyId": "A" * 20, "awsSecretAccessKey": "s", "awsRegion": "r.evil",
                },
            },
            400,
            "awsRegion",
        ),
    ],
)  # fmt: skip
async def test_what_cannot_be_built_is_refused_and_stays_waiting(
    tmp_path: Path, body: dict[str, Any], status_code: int, said: str
) -> None:
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        made = await request(server)
        path = f"/v2/templates/{made['templateID']}/builds/{made['buildID']}"
        code, message = refused(await server.client.post(path, json=body))
        assert (code, said in message) == (status_code, True), message
        assert (await status(server, made))["status"] == "waiting"


async def test_a_service_account_is_a_password(tmp_path: Path) -> None:
    builder = FakeBuilder()
    async with api_server(tmp_path, builder=builder) as server:
        made = await request(server)
        await start(server, made, fromImageRegistry={"type": "gcp", "serviceAccountJson": '{"a": 1}'})
        await ended(server, made)
        assert builder.orders[0].recipe.login == RegistryLogin("_json_key", '{"a": 1}')


async def test_keys_of_aws_are_exchanged_where_the_image_is_fetched(tmp_path: Path) -> None:
    builder = FakeBuilder()
    async with api_server(tmp_path, builder=builder) as server:
        made, keys = await request(server), {"awsAccessKeyId": "A" * 20, "awsSecretAccessKey": "hidden"}
        await start(server, made, fromImageRegistry={"type": "aws", "awsRegion": "us-gov-west-1", **keys})
        await ended(server, made)
        assert builder.orders[0].recipe.login == AwsKeys("A" * 20, "hidden", "us-gov-west-1")
        assert "hidden" not in repr(builder.orders[0])


async def test_a_build_begins_once(tmp_path: Path) -> None:
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        made = await built(server)
        path = f"/v2/templates/{made['templateID']}/builds/{made['buildID']}"
        answer = await server.client.post(path, json={"fromImage": "debian"})
        assert answer.status_code == 400
        assert "build is not in waiting state" in answer.json()["message"]
        unknown = f"/v2/templates/{made['templateID']}/builds/{uuid.uuid4()}"
        assert (await server.client.post(unknown, json={"fromImage": "debian"})).status_code == 400


async def test_an_unknown_build_is_400(tmp_path: Path) -> None:
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        made, other = await request(server), await request(server, "other")
        for build_id in (str(uuid.uuid4()), "x", other["buildID"]):
            for what in ("status", "logs"):
                answer = await server.client.get(f"/templates/{made['templateID']}/builds/{build_id}/{what}")
                assert (answer.status_code, answer.json()["error_code"]) == (400, "build_not_found")


async def test_a_failure_names_its_step_and_keeps_its_words(tmp_path: Path) -> None:
    said = "failed to run command 'whoami': command failed: unauthenticated: invalid username: 'root123'"

    async def fail(_: BuildOrder, say: Say) -> Built:
        say(LogLevel.INFO, "RUN whoami", "1")
        raise BuildFailed(said, "1")

    async with api_server(tmp_path, builder=FakeBuilder(fail)) as server:
        made = await request(server)
        await start(server, made)
        end = await ended(server, made)
        assert (end["status"], end["reason"]["message"], end["reason"]["step"]) == ("error", said, "1")
        assert [(line["level"], line["message"], line["step"]) for line in end["logEntries"]] == [
            ("info", "RUN whoami", "1"),
            ("error", said, "1"),
        ]
        assert (await create(server, "mine")).status_code == 404


@pytest.mark.parametrize(
    ("error", "said"), [(NoSpace(), NoSpace().message), (RuntimeError("secret detail"), "internal error")]
)
async def test_any_failure_ends_the_build_with_a_reason(tmp_path: Path, error: Exception, said: str) -> None:
    async def fail(_: BuildOrder, say: Say) -> Built:
        raise error

    async with api_server(tmp_path, builder=FakeBuilder(fail)) as server:
        made = await request(server)
        await start(server, made)
        end = await ended(server, made)
        assert (end["status"], said in end["reason"]["message"]) == ("error", True)
        assert "secret detail" not in end["reason"]["message"]


async def test_builds_wait_in_line_and_too_many_are_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BUILDS_AT_ONCE", 1)
    monkeypatch.setattr(limits, "BUILDS_WAITING", 1)
    go = asyncio.Event()

    async def wait(_: BuildOrder, say: Say) -> Built:
        await go.wait()
        return BUILT

    builder = FakeBuilder(wait)
    async with api_server(tmp_path, builder=builder) as server:
        made = [await request(server, f"n{number}") for number in range(3)]
        await start(server, made[0])
        await begun(builder)
        await start(server, made[1])
        path = f"/v2/templates/{made[2]['templateID']}/builds/{made[2]['buildID']}"
        assert (await server.client.post(path, json={"fromImage": "a"})).status_code == 503
        assert (await status(server, made[2]))["status"] == "waiting"
        assert [order.id for order in builder.orders] == [made[0]["buildID"]]
        assert (await status(server, made[1]))["status"] == "building"
        go.set()
        assert (await ended(server, made[1]))["status"] == "ready"
        lines = (await status(server, made[1]))["logEntries"]
        assert ["Waiting for a place" in line["message"] for line in lines] == [True]


# --- logs --------------------------------------------------------------------------------------------------


async def talk(_: BuildOrder, say: Say) -> Built:
    for number in range(250):
        say(LogLevel.WARN if number % 2 else LogLevel.DEBUG, f"line {number}", "1")
    return BUILT


async def test_a_log_is_read_by_offset_until_it_is_drained(tmp_path: Path) -> None:
    async with api_server(tmp_path, builder=FakeBuilder(talk)) as server:
        made = await built(server)
        seen: list[str] = []
        while entries := (await status(server, made, logsOffset=len(seen)))["logEntries"]:
            assert len(entries) <= 100
            seen += [entry["message"] for entry in entries]
        assert seen == [f"line {number}" for number in range(250)]
        warnings = (await status(server, made, level="warn", limit=2, logsOffset=1))["logEntries"]
        assert [entry["message"] for entry in warnings] == ["line 3", "line 5"]


async def test_a_log_is_read_by_time_in_both_directions(tmp_path: Path) -> None:
    async with api_server(tmp_path, builder=FakeBuilder(talk)) as server:
        made = await built(server)
        path = f"/templates/{made['templateID']}/builds/{made['buildID']}/logs"
        last = (await server.client.get(path, params={"direction": "backward", "limit": 2})).json()["logs"]
        assert [line["message"] for line in last] == ["line 249", "line 248"]
        first = (await server.client.get(path, params={"cursor": 0, "limit": 1, "level": "warn"})).json()["logs"]
        assert [(line["message"], line["level"], line["step"]) for line in first] == [("line 1", "warn", "1")]
        assert (await server.client.get(path, params={"cursor": 2**42})).json() == {"logs": []}


async def test_a_log_has_a_limit_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BUILD_LOG_LINES", 3)
    async with api_server(tmp_path, builder=FakeBuilder(talk)) as server:
        made = await built(server)
        lines = (await status(server, made))["logEntries"]
        assert [line["message"] for line in lines] == ["line 0", "line 1", "line 2", lines[3]["message"]]
        assert "full" in lines[3]["message"]


# --- ends that nobody waited for ---------------------------------------------------------------------------


async def forever(_: BuildOrder, say: Say) -> Built:
    say(LogLevel.INFO, "at work", None)
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_build_can_be_cancelled_once(tmp_path: Path) -> None:
    builder = FakeBuilder(forever)
    async with api_server(tmp_path, builder=builder) as server:
        made, idle = await request(server), await request(server, "idle")
        await start(server, made)
        await begun(builder)
        for one in (made, idle):
            path = f"/templates/{one['templateID']}/builds/{one['buildID']}"
            assert (await server.client.delete(path)).status_code == 204
            end = await status(server, one)
            assert (end["status"], end["reason"]["message"]) == ("error", "the build was cancelled")
            assert (await server.client.delete(path)).status_code == 400
        assert builder.broken_off == [made["buildID"]]


async def test_a_template_that_goes_takes_its_builds_along(tmp_path: Path) -> None:
    builder = FakeBuilder(forever)
    async with api_server(tmp_path, builder=builder) as server:
        made = await request(server)
        await start(server, made)
        await begun(builder)
        assert (await server.client.delete("/templates/mine")).status_code == 204
        assert builder.broken_off == [made["buildID"]]
        assert (await server.client.get("/templates/mine")).status_code == 404
        assert (await request(server))["templateID"] != made["templateID"]


async def test_a_build_ended_from_elsewhere_is_broken_off(tmp_path: Path) -> None:
    builder = FakeBuilder(forever)
    async with api_server(tmp_path, builder=builder) as server:
        made = await request(server)
        await start(server, made)
        await begun(builder)
        await server.store.fail_build(made["templateID"], made["buildID"], "cancelled there", None, BASE.created_at)
        async with asyncio.timeout(10):
            while not builder.broken_off:
                await asyncio.sleep(0.01)
        assert (await status(server, made))["reason"]["message"] == "cancelled there"


async def test_a_build_ends_with_its_server_and_the_next_one_says_so(tmp_path: Path) -> None:
    builder = FakeBuilder(forever)
    async with api_server(tmp_path, builder=builder) as server:
        made = await request(server)
        await start(server, made)
        await begun(builder)
        store = server.store
    found = await store.build(made["templateID"], made["buildID"])
    assert found is not None and found.reason is not None
    assert (found.status, "build again" in found.reason) == ("error", True)


async def test_what_a_crash_left_at_work_is_an_error_and_what_waited_waits(tmp_path: Path) -> None:
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        crashed, waiting = await request(server), await request(server, "waiting")
        await server.store.claim_build(crashed["templateID"], crashed["buildID"], BASE.created_at)
        await server.control.context.builds.recover()
        end = await status(server, crashed)
        assert (end["status"], "the server ended" in end["reason"]["message"]) == ("error", True)
        assert (await status(server, waiting))["status"] == "waiting"
        await start(server, await request(server))


async def test_a_build_that_is_never_started_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        made = await request(server)
        await server.control.context.builds.expire()
        assert (await status(server, made))["status"] == "waiting"
        monkeypatch.setattr(limits, "BUILD_START_S", 0)
        await server.control.context.builds.expire()
        assert (await status(server, made))["status"] == "error"
