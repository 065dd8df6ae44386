"""Secrets over the API: described, never given back, and sealed in the database."""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest

from tests.unit.api_server import ApiServer, api_server
from warren.control.clock import SystemClock, SystemIds
from warren.control.sealing import Keyring
from warren.control.secrets import Secrets
from warren.model import limits
from warren.model.audit import Kind

pytestmark = pytest.mark.anyio
KEY = secrets.token_hex(32)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncGenerator[ApiServer]:
    async with api_server(tmp_path, sql=True, secrets_key=KEY) as running:
        yield running


async def make(server: ApiServer, name: str = "Token", value: str = "planted", **fields: object) -> httpx.Response:
    return await server.client.post("/secrets", json={"name": name, "value": value, **fields})


async def test_a_secret_is_described_and_its_value_never_shown(server: ApiServer) -> None:
    made = await make(server, metadata={"team": "a"})
    assert made.status_code == 201
    body = made.json()
    assert set(body) == {"secretID", "name", "currentVersion", "metadata", "createdAt", "updatedAt"}
    assert (body["name"], body["currentVersion"], body["metadata"]) == ("Token", 1, {"team": "a"})
    assert body["secretID"].startswith("sec_")
    for reference in (body["secretID"], "Token", "tOKEN"):
        answer = await server.client.get(f"/secrets/{reference}")
        assert answer.json() == body
        assert answer.headers["cache-control"] == "no-store"
    listed = await server.client.get("/secrets")
    assert listed.json() == [body]
    for answer in (made, listed):
        assert "planted" not in answer.text
        assert answer.headers["cache-control"] == "no-store"


async def test_updates_count_versions_and_keep_metadata_unless_told(server: ApiServer) -> None:
    await make(server, metadata={"a": "b"})
    second = (await server.client.post("/secrets/token", json={"value": "two"})).json()
    assert (second["currentVersion"], second["metadata"]) == (2, {"a": "b"})
    third = await server.client.post(f"/secrets/{second['secretID']}", json={"value": "three", "metadata": {}})
    assert (third.status_code, third.json()["currentVersion"], third.json()["metadata"]) == (200, 3, {})
    at_once = await asyncio.gather(*(server.client.post("/secrets/token", json={"value": "x"}) for _ in range(4)))
    assert sorted(answer.json()["currentVersion"] for answer in at_once) == [4, 5, 6, 7]


async def test_a_deleted_secret_is_gone_and_its_name_free(server: ApiServer) -> None:
    await make(server)
    assert (await server.client.delete("/secrets/Token")).status_code == 204
    for answer in (
        await server.client.delete("/secrets/Token"),
        await server.client.get("/secrets/Token"),
        await server.client.post("/secrets/Token", json={"value": "x"}),
    ):
        assert (answer.status_code, answer.json()["error_code"]) == (404, "secret_not_found")
    assert (await make(server)).status_code == 201


async def test_names_values_and_numbers_are_bounded(server: ApiServer) -> None:
    assert (await make(server, "a" * 128, "v" * limits.SECRET_VALUE_BYTES)).status_code == 201
    for name, value in (
        ("", "v"),
        ("a" * 129, "v"),
        ("a b", "v"),
        ("naïve", "v"),
        ("sec_" + "0" * 20, "v"),
        ("b", ""),
        ("b", "v" * (limits.SECRET_VALUE_BYTES + 1)),
        ("b", "ü" * (limits.SECRET_VALUE_BYTES // 2 + 1)),
    ):
        refused = await make(server, name, value)
        assert refused.status_code == 400, name
        assert "vvvvv" not in refused.text
        assert "üü" not in refused.text
    assert (await make(server, "A" * 128)).status_code == 409
    assert (await make(server, "b", "v" * limits.SECRET_BODY_BYTES)).status_code == 413
    few = await server.other_project(secrets=1)
    answers = [
        await server.client.post("/secrets", json={"name": n, "value": "v"}, headers=few) for n in ("one", "two")
    ]
    assert [answer.status_code for answer in answers] == [201, 429]
    assert "(secrets)" in answers[1].json()["message"]


async def test_pages_hold_all_secrets_once(server: ApiServer) -> None:
    for number in range(5):
        await make(server, f"n{number}")
    seen: list[str] = []
    query: dict[str, str | int] = {"limit": 2}
    while True:
        page = await server.client.get("/secrets", params=query)
        seen += [one["name"] for one in page.json()]
        if "x-next-token" not in page.headers:
            break
        query["nextToken"] = page.headers["x-next-token"]
    assert seen == [f"n{number}" for number in reversed(range(5))]


async def test_the_database_holds_no_value(server: ApiServer, tmp_path: Path) -> None:
    await make(server, value="planted-value-of-a-secret")
    await server.client.post("/secrets/token", json={"value": "planted-second-value"})
    files = [path for path in tmp_path.iterdir() if path.name.startswith("warren.db")]
    assert files
    assert not any(b"planted" in path.read_bytes() for path in files)
    values = await server.store.values_under_other_keys("", ("", 0), 10)
    ring = Keyring.parse(KEY, "the test")
    assert [ring.open(value) for value in values] == ["planted-value-of-a-secret", "planted-second-value"]


async def test_a_new_key_takes_over_all_values_at_the_start(server: ApiServer) -> None:
    for number in range(limits.RESEAL_BATCH + 2):
        await make(server, f"n{number}", f"value {number}")
    new = Keyring.parse(f"{secrets.token_hex(32)}\n{KEY}", "the test")
    await Secrets(store=server.store, clock=SystemClock(), ids=SystemIds(), keyring=new).reseal()
    assert await server.store.values_under_other_keys(new.current, ("", 0), 10) == []
    values = await server.store.values_under_other_keys("", ("", 0), limits.RESEAL_BATCH + 2)
    alone = Keyring(new.keys[:1])
    assert {alone.open(value) for value in values} == {f"value {n}" for n in range(limits.RESEAL_BATCH + 2)}


async def test_values_whose_key_is_missing_are_left_as_they_are(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    await make(server)
    before = await server.store.values_under_other_keys("", ("", 0), 10)
    other = Keyring.parse(secrets.token_hex(32), "the test")
    await Secrets(store=server.store, clock=SystemClock(), ids=SystemIds(), keyring=other).reseal()
    assert await server.store.values_under_other_keys("", ("", 0), 10) == before
    assert "cannot open values of secrets" in capsys.readouterr().out


async def test_the_audit_names_secrets_by_id(server: ApiServer) -> None:
    made = (await make(server)).json()["secretID"]
    await server.client.post("/secrets/token", json={"value": "two"})
    await server.client.delete(f"/secrets/{made}")
    assert [(event.kind, event.subject) for event in server.audit.events] == [
        (kind, f"secret:{made}") for kind in (Kind.SECRET_CREATE, Kind.SECRET_UPDATE, Kind.SECRET_DELETE)
    ]
    assert "planted" not in repr(server.audit.events)
