"""What a client does while the server crashes, and what must be true when the next server is up.

A new operation is one more line in OPERATIONS: `prepare` makes what it needs, `act` does it through the client and
returns what was acknowledged, `check` looks at what the next server says; it gets None when nothing was acknowledged.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
from e2b import Sandbox, SandboxQuery

from tests.e2e.local_server import LocalServer
from tests.e2e.waiting import until
from tests.leaks import kept_by_builds

LIFE_S = 600
LONGER_S = 3600
BOUND_S = 90
"""Seconds for whatever has to come to pass, also on a busy machine."""


@dataclass(frozen=True, slots=True)
class Operation:
    name: str
    prepare: Callable[[LocalServer, str], Any]
    act: Callable[[LocalServer, Any], Any]
    check: Callable[[LocalServer, Any, Any], None]


def new(server: LocalServer, runtime: str, **options: Any) -> Sandbox:
    return Sandbox.create(
        **{"timeout": LIFE_S, "retries": 0, "request_timeout": 60, **options},
        api_headers={"X-Warren-Runtime": runtime},
        **server.options,
    )


def listed(server: LocalServer, **metadata: str) -> set[str]:
    query = SandboxQuery(metadata=metadata) if metadata else None
    return {info.sandbox_id for info in Sandbox.list(query=query, **server.options).next_items()}


def checkpoints(server: LocalServer) -> set[str]:
    """On the server's disk, whole or not; but for what builds have left for the next ones."""
    return {path.name for path in (server.state / "engine" / "checkpoints").glob("*")} - kept_by_builds(server.state)


def snapshots(server: LocalServer) -> list[str]:
    return [snapshot.snapshot_id for snapshot in Sandbox.list_snapshots(**server.options).next_items()]


def spares(server: LocalServer) -> dict[str, int]:
    """How many sandboxes the pool keeps ready of each runtime that it is told to keep."""
    if server.settings["WARREN_POOL_SANDBOXES"] == "0":
        return {}
    levels = httpx.get(f"{server.api_url}/pools", headers={"X-API-KEY": server.api_key}, timeout=30).json()
    return {level["runtime"]: level["ready"] for level in levels}


def works(server: LocalServer, sandbox_id: str) -> None:
    sandbox = Sandbox.connect(sandbox_id, **server.options)
    assert sandbox.commands.run("echo whole", timeout=BOUND_S, request_timeout=BOUND_S).stdout == "whole\n"


def _mark(server: LocalServer, runtime: str) -> tuple[str, str]:
    return runtime, secrets.token_hex(8)


def _create(server: LocalServer, given: tuple[str, str]) -> str:
    return new(server, given[0], metadata={"mark": given[1]}).sandbox_id


def _spare(server: LocalServer, runtime: str) -> tuple[str, str]:
    until(lambda: spares(server).get(runtime), BOUND_S, "there is a spare")
    return _mark(server, runtime)


def _create_once(server: LocalServer, given: tuple[str, str]) -> str:
    return new(server, given[0], metadata={"mark": given[1]}, idempotency_key=given[1]).sandbox_id


def _is_there_once_after_a_retry(server: LocalServer, given: tuple[str, str], made: str | None) -> None:
    _is_whole_or_not_there(server, given, made)
    assert {_create_once(server, given)} == listed(server, mark=given[1]), "a retry at once finds it or makes it"


def _is_whole_or_not_there(server: LocalServer, given: tuple[str, str], made: str | None) -> None:
    there = listed(server, mark=given[1])
    assert made is None or there == {made}, "an acknowledged sandbox is there"
    for sandbox_id in there:
        works(server, sandbox_id)


def _kill(server: LocalServer, sandbox: Sandbox) -> bool:
    return sandbox.kill(retries=0)


def _is_gone_or_untouched(server: LocalServer, sandbox: Sandbox, killed: bool | None) -> None:
    if killed or sandbox.sandbox_id not in listed(server):
        assert sandbox.sandbox_id not in listed(server), "what was killed stays so"
    else:
        works(server, sandbox.sandbox_id)


def _about_to_expire(server: LocalServer, runtime: str) -> Sandbox:
    return new(server, runtime, timeout=3)


def _expire(server: LocalServer, sandbox: Sandbox) -> None:
    until(
        lambda: not server.is_up or sandbox.sandbox_id not in listed(server), BOUND_S, "it expires or the server dies"
    )


def _has_expired(server: LocalServer, sandbox: Sandbox, _: None) -> None:
    until(lambda: sandbox.sandbox_id not in listed(server), BOUND_S, "it is ended at its deadline")
    assert "killed" not in _last_words(server, sandbox), "nobody killed it"


def _last_words(server: LocalServer, sandbox: Sandbox) -> str:
    url = f"{server.api_url}/v2/sandboxes/{sandbox.sandbox_id}/logs"
    logs = httpx.get(url, headers={"X-API-KEY": server.api_key}, timeout=30).json()["logs"]
    return " ".join(entry["message"] for entry in logs if entry["message"].startswith("sandbox ended"))


def _set_timeout(server: LocalServer, sandbox: Sandbox) -> bool:
    sandbox.set_timeout(LONGER_S)
    return True


def _has_a_deadline(server: LocalServer, sandbox: Sandbox, moved: bool | None) -> None:
    info = sandbox.get_info()
    life = info.end_at - info.started_at
    near, far = timedelta(seconds=LIFE_S), timedelta(seconds=LONGER_S)
    assert life >= far if moved else life == near or life >= far
    works(server, sandbox.sandbox_id)


def _close_network(server: LocalServer, sandbox: Sandbox) -> bool:
    sandbox.update_network({"deny_out": ["8.8.8.8/32"]})
    return True


def _has_the_rules_it_says(server: LocalServer, sandbox: Sandbox, closed: bool | None) -> None:
    said = [str(rule) for rule in (sandbox.get_info().network or {}).get("deny_out") or []]
    kept = [str(rule) for rule in server.placement(sandbox.sandbox_id)["deny"]]  # type: ignore[attr-defined]
    assert [rule.removesuffix("/32") for rule in said] == [rule.removesuffix("/32") for rule in kept]
    assert said or not closed


def _restart(server: LocalServer, _: Sandbox) -> None:
    server.kill()
    server.start()


def _works_still(server: LocalServer, sandbox: Sandbox, _: None) -> None:
    works(server, sandbox.sandbox_id)


def _restart_with_a_death(server: LocalServer, sandbox: Sandbox) -> None:
    server.kill()
    server.end_process_of(sandbox.sandbox_id)
    server.start()


def _stop(server: LocalServer, _: Sandbox) -> None:
    server.stop()


OPERATIONS = (
    Operation("create", _mark, _create, _is_whole_or_not_there),
    Operation("create_once", _mark, _create_once, _is_there_once_after_a_retry),
    Operation("kill", new, _kill, _is_gone_or_untouched),
    Operation("expire", _about_to_expire, _expire, _has_expired),
    Operation("set_timeout", new, _set_timeout, _has_a_deadline),
    Operation("set_network", new, _close_network, _has_the_rules_it_says),
    Operation("adopt", new, _restart, _works_still),
    Operation("adopt_the_dead", new, _restart_with_a_death, _has_expired),
    Operation("stop", new, _stop, _works_still),
)
POOL_OPERATIONS = (Operation("claim", _spare, _create_once, _is_there_once_after_a_retry),)
"""For a server that keeps spares."""
