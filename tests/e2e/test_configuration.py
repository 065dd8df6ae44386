"""How a client finds the server, proves who it is, and learns what went wrong."""

import json
import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from e2b import (
    E2B,
    AsyncSandbox,
    AuthenticationException,
    Sandbox,
    SandboxNotFoundException,
    SandboxNotRunningException,
)

from tests.e2e.local_server import LocalServer

Create = Callable[..., Sandbox]
UNKNOWN_ID = "i" + "0" * 20


@pytest.mark.covers("C01", "C07")
@pytest.mark.parametrize("key", ["e2b_" + "0" * 40, "anything", "e2b_' OR 1=1 --"])
@pytest.mark.threat("D2")
def test_a_wrong_key_opens_nothing(key: str, box: Sandbox) -> None:
    for attempt in (
        lambda: Sandbox.create(api_key=key),
        lambda: Sandbox.connect(box.sandbox_id, api_key=key),
        lambda: Sandbox.kill(box.sandbox_id, api_key=key),
        lambda: Sandbox.list(api_key=key).next_items(),
    ):
        with pytest.raises(AuthenticationException):
            attempt()
    assert box.is_running()


@pytest.mark.covers("C01")
@pytest.mark.threat("D2")
def test_a_request_without_a_key_is_told_so(server: LocalServer) -> None:
    answer = httpx.get(f"{server.api_url}/v2/sandboxes", timeout=30)
    assert (answer.status_code, answer.json()["code"]) == (401, 401)


@pytest.mark.covers("C01")
@pytest.mark.threat("D2")
def test_a_key_is_created_used_listed_and_revoked(server: LocalServer) -> None:
    created = server.run("key", "create", "for a friend", "--json")
    assert created.returncode == 0, created.stderr
    key = next(value for value in _strings(created.stdout) if value.startswith("e2b_") and len(value) > 30)
    assert Sandbox.list(api_key=key).next_items() is not None
    listed = server.run("key", "list", "--json").stdout
    assert "for a friend" in listed
    assert key not in listed
    key_id = next(row["id"] for row in _rows(listed) if row["name"] == "for a friend")
    assert server.run("key", "revoke", key_id).returncode == 0
    with pytest.raises(AuthenticationException):
        Sandbox.list(api_key=key).next_items()


@pytest.mark.covers("C01")
@pytest.mark.threat("D3")
def test_the_guest_wants_its_own_token(box: Sandbox, server: LocalServer) -> None:
    headers = {"E2b-Sandbox-Id": box.sandbox_id, "E2b-Sandbox-Port": "49983"}
    for token in ({}, {"X-Access-Token": "wrong"}, {"X-Access-Token": server.api_key}):
        answer = httpx.post(
            f"{server.gateway_url}/process.Process/List", json={}, headers={**headers, **token}, timeout=30
        )
        assert answer.status_code == 401
    assert httpx.get(f"{server.gateway_url}/files?path=/etc/passwd", headers=headers, timeout=30).status_code == 401


@pytest.mark.covers("C02")
def test_one_address_serves_every_sandbox(create: Create, server: LocalServer) -> None:
    first, second = create(), create()
    assert first.envd_api_url == second.envd_api_url == server.gateway_url
    first.files.write("/tmp/who", "first")
    second.files.write("/tmp/who", "second")
    assert (first.files.read("/tmp/who"), second.files.read("/tmp/who")) == ("first", "second")


@pytest.mark.covers("C02")
def test_half_of_the_routing_headers_is_an_error(box: Sandbox, server: LocalServer) -> None:
    for headers in ({"E2b-Sandbox-Id": box.sandbox_id}, {"E2b-Sandbox-Port": "49983"}):
        answer = httpx.get(f"{server.gateway_url}/health", headers=headers, timeout=30)
        assert (answer.status_code, answer.json()["code"]) == (400, 400)


@pytest.mark.covers("C03")
def test_everything_works_by_host_names_over_tls(
    monkeypatch: pytest.MonkeyPatch, server: LocalServer, on_runtime: dict[str, Any]
) -> None:
    monkeypatch.delenv("E2B_API_URL")
    monkeypatch.delenv("E2B_SANDBOX_URL")
    monkeypatch.setenv("E2B_DOMAIN", server.domain)
    with Sandbox.create(timeout=120, **on_runtime) as sandbox:
        assert sandbox.envd_api_url == f"https://49983-{sandbox.sandbox_id}.{server.domain}"
        assert sandbox.commands.run("echo over TLS").stdout == "over TLS\n"
        data = bytes(range(256)) * 8192
        sandbox.files.write("/tmp/large", data)
        assert bytes(sandbox.files.read("/tmp/large", format="bytes")) == data
        assert sandbox.is_running()
        assert sandbox.get_info().sandbox_id == sandbox.sandbox_id


@pytest.mark.anyio
@pytest.mark.covers("C03")
async def test_the_async_client_uses_host_names_too(
    monkeypatch: pytest.MonkeyPatch, server: LocalServer, on_runtime: dict[str, Any]
) -> None:
    monkeypatch.delenv("E2B_API_URL")
    monkeypatch.delenv("E2B_SANDBOX_URL")
    monkeypatch.setenv("E2B_DOMAIN", server.domain)
    async with await AsyncSandbox.create(timeout=120, **on_runtime) as sandbox:
        assert (await sandbox.commands.run("echo over TLS")).stdout == "over TLS\n"


@pytest.mark.covers("C05")
def test_a_bound_client_carries_its_own_settings(server: LocalServer, on_runtime: dict[str, Any]) -> None:
    client = E2B(api_key=server.api_key, api_url=server.api_url, sandbox_url=server.gateway_url, **on_runtime)
    with client.Sandbox.create(timeout=60, logger=logging.getLogger("bound")) as sandbox:
        assert sandbox.commands.run("echo bound").stdout == "bound\n"


@pytest.mark.covers("C06", "C07")
def test_an_answer_that_will_not_change_is_not_asked_for_again(server: LocalServer) -> None:
    headers = {"E2b-Sandbox-Id": UNKNOWN_ID, "E2b-Sandbox-Port": "49983"}
    answer = httpx.get(f"{server.gateway_url}/health", headers=headers, timeout=30)
    assert (answer.status_code, answer.headers["should-retry"]) == (502, "false")
    assert answer.json() == {"sandboxId": UNKNOWN_ID, "message": "The sandbox was not found", "code": 502}


@pytest.mark.covers("C07")
def test_every_error_has_a_body_with_its_status(server: LocalServer, box: Sandbox) -> None:
    key = {"X-API-KEY": server.api_key}
    with httpx.Client(base_url=server.api_url, timeout=30) as api:
        for answer, status in (
            (api.get("/v2/sandboxes"), 401),
            (api.get("/no/such/route", headers=key), 404),
            (api.get(f"/sandboxes/{UNKNOWN_ID}", headers=key), 404),
            (api.put("/health", headers=key), 405),
            (api.post("/v2/sandboxes", content=b"{not json", headers=key), 400),
            (api.post("/v2/sandboxes", json={"templateID": 5}, headers=key), 400),
            (api.get("/v2/sandboxes?limit=1000", headers=key), 400),
            (api.post(f"/sandboxes/{box.sandbox_id}/timeout", json={"timeout": -1}, headers=key), 400),
            (api.get("/secrets/none", headers=key), 404),
        ):
            assert answer.status_code == status, answer.text
            assert answer.json()["code"] == status
            assert answer.json()["message"]


@pytest.mark.covers("C07")
@pytest.mark.threat("D1")
def test_not_there_and_not_yours_sound_the_same(server: LocalServer) -> None:
    answer = httpx.get(f"{server.api_url}/sandboxes/{UNKNOWN_ID}", headers={"X-API-KEY": server.api_key}, timeout=30)
    assert answer.json()["message"] == f"Sandbox \"{UNKNOWN_ID}\" doesn't exist or you don't have access to it"
    with pytest.raises(SandboxNotFoundException):
        Sandbox.get_info(UNKNOWN_ID)


@pytest.mark.covers("C07")
def test_a_dead_sandbox_is_not_running_whatever_is_asked(create: Create) -> None:
    sandbox = create()
    sandbox.kill()
    for attempt in (
        lambda: sandbox.commands.run("true"),
        lambda: sandbox.files.list("/"),
        lambda: sandbox.files.read("/etc/hostname"),
        lambda: sandbox.files.write("/tmp/x", "x"),
    ):
        with pytest.raises(SandboxNotRunningException):
            attempt()


def _rows(text: str) -> list[dict[str, Any]]:
    decoded = json.loads(text)
    return (
        decoded if isinstance(decoded, list) else next(value for value in decoded.values() if isinstance(value, list))
    )


def _strings(text: str) -> list[str]:
    return [value for value in json.loads(text).values() if isinstance(value, str)]
