"""Every change through the API is in the audit log before its answer is out: who, what, and what was decided."""

from pathlib import Path

import pytest

from tests.unit.api_server import api_server
from warren.api.audit_trail import KINDS, READS
from warren.api.routes import ROUTES
from warren.model.audit import Kind, Outcome
from warren.model.errors import AuditUnavailable, NoCapacity

pytestmark = pytest.mark.anyio
SANDBOX = {"templateID": "base"}


def test_every_route_that_changes_something_has_a_kind() -> None:
    changing = {(route.method, route.path) for route in ROUTES if route.method not in READS}
    assert changing == set(KINDS)


async def test_changes_name_who_did_what_to_which_sandbox(tmp_path: Path) -> None:
    async with api_server(tmp_path) as server:
        made = (await server.client.post("/v2/sandboxes", json=SANDBOX)).json()["sandboxID"]
        await server.client.post(f"/sandboxes/{made}/timeout", json={"timeout": 60})
        await server.client.put(f"/sandboxes/{made}/network", json={"denyOut": ["192.0.2.0/24"]})
        await server.client.get(f"/sandboxes/{made}")
        await server.client.delete(f"/sandboxes/{made}")
        (key,) = await server.store.keys(server.project.id)
        written = [event for event in server.audit.events if event.via == "api"]
        assert [(event.kind, event.outcome) for event in written] == [
            (Kind.SANDBOX_CREATE, Outcome.ALLOWED),
            (Kind.SANDBOX_TIMEOUT, Outcome.ALLOWED),
            (Kind.SANDBOX_NETWORK, Outcome.ALLOWED),
            (Kind.SANDBOX_KILL, Outcome.ALLOWED),
        ]
        assert {(event.subject, event.project, event.key) for event in written} == {
            (f"sandbox:{made}", server.project.id, key.id)
        }
        ended = next(event for event in server.audit.events if event.kind is Kind.SANDBOX_END)
        assert (ended.rule, ended.subject) == ("killed", f"sandbox:{made}")


async def test_keys_are_named_by_id_and_never_shown(tmp_path: Path) -> None:
    async with api_server(tmp_path) as server:
        made = (await server.client.post("/api-keys", json={"name": "one"})).json()
        await server.client.patch(f"/api-keys/{made['id']}", json={"name": "two"})
        await server.client.delete(f"/api-keys/{made['id']}")
        assert [(event.kind, event.subject) for event in server.audit.events] == [
            (kind, f"key:{made['id']}") for kind in (Kind.KEY_CREATE, Kind.KEY_RENAME, Kind.KEY_REVOKE)
        ]
        assert made["key"] not in repr(server.audit.events) and server.key not in repr(server.audit.events)


async def test_refusals_name_their_rule(tmp_path: Path) -> None:
    async with api_server(tmp_path) as server:
        await server.client.get("/teams", headers={"X-API-KEY": "e2b_wrong"})
        await server.client.post("/v2/sandboxes", json={"templateID": "nothing"})
        await server.client.post("/v2/sandboxes", json={"templateID": 5})
        await server.client.delete("/sandboxes/i00000000000000000000")
        other = await server.other_project(sandboxes=0)
        await server.client.post("/v2/sandboxes", json=SANDBOX, headers=other)
        assert [(event.kind, event.outcome, event.rule) for event in server.audit.events] == [
            (Kind.AUTH_REFUSED, Outcome.REFUSED, "unauthenticated"),
            (Kind.SANDBOX_CREATE, Outcome.REFUSED, "template_not_found"),
            (Kind.SANDBOX_CREATE, Outcome.REFUSED, "400"),
            (Kind.SANDBOX_KILL, Outcome.REFUSED, "sandbox_not_found"),
            (Kind.SANDBOX_CREATE, Outcome.REFUSED, "limit_reached"),
        ]
        assert server.audit.events[0].details == {"address": "127.0.0.1"}


async def test_what_the_machine_refuses_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: object) -> None:
        raise NoCapacity

    async with api_server(tmp_path) as server:
        monkeypatch.setattr(server.engine, "create", full)
        await server.client.post("/v2/sandboxes", json=SANDBOX)
        asked = [event for event in server.audit.events if event.via == "api"]
        assert [(event.outcome, event.rule) for event in asked] == [(Outcome.FAILED, "sandbox_capacity_unavailable")]


async def test_nothing_changes_while_it_cannot_be_written_down(tmp_path: Path) -> None:
    async with api_server(tmp_path) as server:
        server.audit.failure = AuditUnavailable()
        answer = await server.client.post("/v2/sandboxes", json=SANDBOX)
        assert (answer.status_code, answer.json()["error_code"]) == (503, "audit_unavailable")
        assert answer.headers["Should-Retry"] == "false"
        assert await server.engine.list() == []
        assert (await server.client.get("/v2/sandboxes")).status_code == 200
