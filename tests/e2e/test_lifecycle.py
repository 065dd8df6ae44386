"""Creating, prolonging and ending sandboxes."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from e2b import AsyncSandbox, Sandbox, SandboxException, SandboxNotFoundException

from tests.e2e.local_server import LocalServer
from tests.e2e.waiting import until

Create = Callable[..., Sandbox]
UNKNOWN_ID = "i" + "0" * 20


def seconds_left(sandbox: Sandbox) -> float:
    return (sandbox.get_info().end_at - datetime.now(UTC)).total_seconds()


@pytest.mark.covers("S01")
def test_the_template_is_base_when_none_is_named(box: Sandbox) -> None:
    info = box.get_info()
    assert info.name == "base"
    assert info.sandbox_id == box.sandbox_id


@pytest.mark.covers("S01")
def test_a_template_is_found_by_id_by_alias_and_by_tagged_name(box: Sandbox, create: Create) -> None:
    template_id = box.get_info().template_id
    for reference in (template_id, "base", "base:default"):
        assert create(reference).get_info().template_id == template_id


@pytest.mark.covers("S01", "C07")
def test_an_unknown_template_is_not_found(on_runtime: dict[str, Any]) -> None:
    with pytest.raises(SandboxException, match="no-such-template") as failure:
        Sandbox.create("no-such-template", **on_runtime)
    assert failure.value.status_code == 404


@pytest.mark.covers("S02")
def test_a_sandbox_lives_300_seconds_unless_told_otherwise(create: Create) -> None:
    info = create(timeout=None).get_info()
    assert (info.end_at - info.started_at).total_seconds() == pytest.approx(300, abs=1)


@pytest.mark.covers("S02")
def test_the_older_create_gives_15_seconds(server: LocalServer, runtime: str) -> None:
    with httpx.Client(base_url=server.api_url, headers={"X-API-KEY": server.api_key}, timeout=60) as api:
        created = api.post("/sandboxes", json={"templateID": "base"}, headers={"X-Warren-Runtime": runtime})
        assert created.status_code == 201
        sandbox = Sandbox.connect(created.json()["sandboxID"], timeout=1)
        assert 10 < seconds_left(sandbox) <= 15
        assert sandbox.kill()


@pytest.mark.covers("S02")
@pytest.mark.parametrize("timeout", [0, -1, 10_000_000])
def test_a_timeout_outside_the_limits_is_refused(timeout: int, on_runtime: dict[str, Any]) -> None:
    with pytest.raises(SandboxException) as failure:
        Sandbox.create(timeout=timeout, **on_runtime)
    assert failure.value.status_code == 400


@pytest.mark.covers("S02", "S08")
def test_a_sandbox_ends_at_its_deadline_and_not_before(create: Create) -> None:
    sandbox = create(timeout=3)
    info = sandbox.get_info()
    until(lambda: not sandbox.is_running(), 20, "the sandbox is over")
    assert datetime.now(UTC) >= info.end_at
    with pytest.raises(SandboxNotFoundException):
        sandbox.get_info()


@pytest.mark.covers("S03", "S11")
def test_metadata_comes_back(create: Create) -> None:
    metadata = {"owner": "Zoë & co", "path/with=signs": "a b+c%20&d"}
    assert create(metadata=metadata).get_info().metadata == metadata


@pytest.mark.covers("S04")
def test_every_process_gets_the_sandbox_wide_environment(create: Create) -> None:
    sandbox = create(envs={"COLOUR": "deep blue", "EMPTY": ""})
    assert sandbox.commands.run('echo "$COLOUR|${EMPTY-unset}"').stdout == "deep blue|\n"
    assert sandbox.commands.run('echo "$COLOUR"', envs={"COLOUR": "red"}).stdout == "red\n"
    assert sandbox.commands.run('echo "$COLOUR"', user="root").stdout == "deep blue\n"


@pytest.mark.covers("S04")
def test_a_process_can_tell_in_which_sandbox_it_runs(box: Sandbox) -> None:
    assert box.commands.run('echo "$E2B_SANDBOX $E2B_SANDBOX_ID"').stdout == f"true {box.sandbox_id}\n"


@pytest.mark.covers("S05")
def test_the_same_idempotency_key_gives_the_same_sandbox(create: Create) -> None:
    key = f"k-{time.time_ns()}"
    first, again = create(idempotency_key=key), create(idempotency_key=key)
    assert first.sandbox_id == again.sandbox_id
    assert again.commands.run("echo same").stdout == "same\n"


@pytest.mark.covers("S05")
def test_an_idempotency_key_is_good_for_one_request_only(create: Create) -> None:
    key = f"k-{time.time_ns()}"
    create(idempotency_key=key)
    with pytest.raises(SandboxException) as failure:
        create(idempotency_key=key, metadata={"another": "body"})
    assert failure.value.status_code == 422


@pytest.mark.covers("S05")
def test_concurrent_creates_under_one_key_make_one_sandbox(create: Create) -> None:
    key = f"k-{time.time_ns()}"

    def attempt(_: int) -> str:
        try:
            return create(idempotency_key=key, retries=0).sandbox_id
        except SandboxException as error:
            assert error.status_code == 409, error
            return "in flight"

    with ThreadPoolExecutor(4) as pool:
        answers = set(pool.map(attempt, range(4)))
    made = answers - {"in flight"}
    assert len(made) == 1
    assert create(idempotency_key=key).sandbox_id in made


@pytest.mark.covers("S06")
def test_older_clients_create_and_connect(server: LocalServer, runtime: str) -> None:
    with httpx.Client(base_url=server.api_url, headers={"X-API-KEY": server.api_key}, timeout=60) as api:
        body = {"templateID": "base", "timeout": 120, "secure": True, "metadata": {}, "envVars": {}}
        created = api.post("/sandboxes", json=body, headers={"X-Warren-Runtime": runtime}).json()
        connected = api.post(f"/sandboxes/{created['sandboxID']}/connect", json={"timeout": 60})
        assert connected.status_code == 200
        assert connected.json()["envdAccessToken"] == created["envdAccessToken"]
        listed = api.get("/sandboxes").json()
        assert created["sandboxID"] in {row["sandboxID"] for row in listed}
        assert api.post(f"/sandboxes/{created['sandboxID']}/refreshes", json={"duration": 300}).status_code == 204
        assert seconds_left(Sandbox.connect(created["sandboxID"], timeout=1)) > 200
        assert api.delete(f"/sandboxes/{created['sandboxID']}").status_code == 204


@pytest.mark.covers("S06")
def test_a_body_sent_in_chunks_is_understood(server: LocalServer, runtime: str) -> None:
    pieces = iter([b'{"templateID"', b':"base","timeout":60}'])
    headers = {"X-API-KEY": server.api_key, "X-Warren-Runtime": runtime, "Content-Type": "application/json"}
    created = httpx.post(f"{server.api_url}/v2/sandboxes", content=pieces, headers=headers, timeout=60)
    assert created.status_code == 201
    assert Sandbox.kill(created.json()["sandboxID"])


@pytest.mark.covers("S07")
def test_connecting_extends_the_deadline_and_never_shortens_it(create: Create) -> None:
    sandbox = create(timeout=200)
    Sandbox.connect(sandbox.sandbox_id, timeout=20)
    assert seconds_left(sandbox) > 150
    Sandbox.connect(sandbox.sandbox_id, timeout=400)
    assert seconds_left(sandbox) > 350


@pytest.mark.covers("S07")
def test_a_connected_client_can_do_everything(box: Sandbox) -> None:
    box.files.write("/tmp/left-by-the-first", "hello")
    other = Sandbox.connect(box.sandbox_id)
    assert other.files.read("/tmp/left-by-the-first") == "hello"
    assert other.commands.run("cat /tmp/left-by-the-first").stdout == "hello"


@pytest.mark.covers("S07", "C07")
@pytest.mark.usefixtures("server")
def test_connecting_to_nothing_is_not_found() -> None:
    with pytest.raises(SandboxNotFoundException):
        Sandbox.connect(UNKNOWN_ID)


@pytest.mark.covers("S08")
def test_set_timeout_lengthens_and_shortens(create: Create) -> None:
    sandbox = create(timeout=60)
    sandbox.set_timeout(500)
    assert 450 < seconds_left(sandbox) <= 500
    sandbox.set_timeout(30)
    assert seconds_left(sandbox) <= 30


@pytest.mark.covers("S08")
def test_a_timeout_of_zero_ends_the_sandbox(create: Create) -> None:
    sandbox = create()
    sandbox.set_timeout(0)
    until(lambda: not sandbox.is_running(), 30, "the sandbox is over")


@pytest.mark.covers("S08", "C07")
@pytest.mark.usefixtures("server")
def test_the_timeout_of_nothing_cannot_be_set() -> None:
    with pytest.raises(SandboxNotFoundException):
        Sandbox.set_timeout(UNKNOWN_ID, 30)


@pytest.mark.covers("S09")
def test_kill_says_whether_there_was_something_to_kill(create: Create) -> None:
    sandbox = create()
    assert sandbox.kill() is True
    assert sandbox.kill() is False
    assert Sandbox.kill(create().sandbox_id) is True
    assert Sandbox.kill(UNKNOWN_ID) is False


@pytest.mark.covers("S09")
def test_concurrent_kills_all_end_well(create: Create) -> None:
    sandbox = create()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: Sandbox.kill(sandbox.sandbox_id), range(4)))
    assert any(answers)
    assert not sandbox.is_running()
    assert sandbox.kill() is False


@pytest.mark.covers("S10")
def test_is_running_follows_the_truth_at_once(create: Create) -> None:
    sandbox = create()
    assert sandbox.is_running() is True
    sandbox.kill()
    assert sandbox.is_running() is False


@pytest.mark.covers("S10")
def test_leaving_the_context_ends_the_sandbox(create: Create) -> None:
    with create() as sandbox:
        assert sandbox.is_running()
    assert not sandbox.is_running()


@pytest.mark.covers("S11")
def test_the_details_are_those_of_the_template(box: Sandbox) -> None:
    info = box.get_info()
    assert (info.cpu_count, info.memory_mb) == (2, 1024)
    assert str(info.state.value) == "running"
    assert info.started_at < datetime.now(UTC) < info.end_at


@pytest.mark.anyio
@pytest.mark.covers("S01", "S03", "S07", "S08", "S09", "S10")
async def test_the_async_client_lives_the_same_life(on_runtime: dict[str, Any]) -> None:
    async with await AsyncSandbox.create(timeout=60, metadata={"kind": "async"}, **on_runtime) as sandbox:
        assert await sandbox.is_running()
        await sandbox.set_timeout(300)
        info = await sandbox.get_info()
        assert info.metadata == {"kind": "async"}
        assert (info.end_at - datetime.now(UTC)).total_seconds() > 250
        other = await AsyncSandbox.connect(sandbox.sandbox_id)
        assert (await other.commands.run("echo $((6 * 7))")).stdout == "42\n"
        assert await AsyncSandbox.kill(sandbox.sandbox_id) is True
        assert not await sandbox.is_running()
    assert await AsyncSandbox.kill(sandbox.sandbox_id) is False
