"""Two servers over one store: each has its own sandboxes, and what one wishes of the other's goes through the rows."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.unit.api_server import BASE
from warren.audit.memory import MemoryAudit
from warren.control.clock import SystemClock, SystemIds
from warren.control.identity import load_identity, settle
from warren.control.keys import Keys
from warren.control.sandbox_start import StartRequest
from warren.control.servers import Servers
from warren.control.work import Work
from warren.engine.fake.engine import FakeEngine
from warren.guest.fake import FakeGuest
from warren.model import limits
from warren.model.errors import ServerAway, Unavailable
from warren.model.policy import NetworkPolicy
from warren.model.project import Project
from warren.model.sandbox import EndReason, Sandbox, State
from warren.settings import Settings
from warren.store.memory import MemoryStore
from warren.store.sql import SqlStore
from warren.wiring.control import Control, build_control

pytestmark = pytest.mark.anyio

DEADLINE_S = 60.0


@dataclass
class Node:
    control: Control
    engine: FakeEngine
    project: Project

    async def create(self) -> Sandbox:
        request = StartRequest(template=BASE, timeout_s=300)
        return (await self.control.context.sandboxes.create(self.project, request)).sandbox


@asynccontextmanager
async def node(store: MemoryStore, state: Path, name: str) -> AsyncGenerator[Node]:
    state.mkdir(exist_ok=True)
    engine = FakeEngine()
    await engine.open()
    async with Work() as work:
        settings = Settings(state_dir=state, server_name=name)
        control = build_control(settings, engine, FakeGuest(), store, work, audit=MemoryAudit())
        await control.servers.register()
        await control.supervision.adopt()
        work.spawn(control.supervision.run(), "supervision")
        work.spawn(control.servers.run(), "heartbeat")
        yield Node(control, engine, await control.context.keys.default_project())


async def eventually(fact: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await fact():
            await asyncio.sleep(0.01)


async def row(store: MemoryStore, sandbox: Sandbox) -> Sandbox:
    found = await store.sandbox(sandbox.project_id, sandbox.id)
    assert found is not None
    return found


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


async def test_a_server_that_starts_leaves_the_others_sandboxes_alone(store: MemoryStore, tmp_path: Path) -> None:
    async with node(store, tmp_path / "a", "a") as a:
        sandbox = await a.create()
        async with node(store, tmp_path / "b", "b") as b:
            assert await row(store, sandbox) == sandbox
            assert b.control.live.find(sandbox.id) is None
            await store.set_deadline(sandbox.id, datetime.now(UTC), only_extend=False)
            await eventually(lambda: is_gone(store, sandbox))
        assert (await row(store, sandbox)).end_reason is EndReason.EXPIRED
        assert await a.engine.list() == []


async def is_gone(store: MemoryStore, sandbox: Sandbox) -> bool:
    return (await row(store, sandbox)).state is State.GONE


async def test_a_kill_from_elsewhere_returns_when_the_home_has_done_it(store: MemoryStore, tmp_path: Path) -> None:
    async with node(store, tmp_path / "a", "a") as a, node(store, tmp_path / "b", "b") as b:
        sandbox = await a.create()
        await b.control.context.sandboxes.kill(b.project, sandbox.id)
        assert (await row(store, sandbox)).end_reason is EndReason.KILLED
        assert await a.engine.list() == []


async def test_a_deadline_moved_from_elsewhere_holds(store: MemoryStore, tmp_path: Path) -> None:
    async with node(store, tmp_path / "a", "a") as a, node(store, tmp_path / "b", "b") as b:
        sandbox = await a.create()
        await b.control.context.sandboxes.set_timeout(b.project, sandbox.id, 0)
        await eventually(lambda: is_gone(store, sandbox))
        assert (await row(store, sandbox)).end_reason is EndReason.EXPIRED


async def test_what_needs_the_engine_names_the_server_that_has_it(store: MemoryStore, tmp_path: Path) -> None:
    async with node(store, tmp_path / "a", "alpha") as a, node(store, tmp_path / "b", "b") as b:
        sandbox, elsewhere = await a.create(), b.control.context.sandboxes
        with pytest.raises(ServerAway, match="'alpha'"):
            await elsewhere.connect(b.project, sandbox.id, 60)
        with pytest.raises(ServerAway, match="'alpha'"):
            await elsewhere.set_network(b.project, sandbox.id, NetworkPolicy())
        assert await elsewhere.get(b.project, sandbox.id) == replace(
            a.control.context.sandboxes.admission(sandbox), access_token=None
        )
        await eventually(lambda: knows(b, sandbox, "alpha"))
        assert await a.control.servers.name_of_home(sandbox.id) is None


async def knows(other: Node, sandbox: Sandbox, name: str) -> bool:
    return await other.control.servers.name_of_home(sandbox.id) == name


async def test_sandboxes_of_a_server_that_is_away_end_at_their_deadline(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warren.control.servers._BEAT", timedelta(milliseconds=5))
    async with node(store, tmp_path / "a", "a") as a:
        due, later = await a.create(), await a.create()
    await store.set_deadline(due.id, datetime.now(UTC), only_extend=False)
    async with node(store, tmp_path / "b", "b"):
        await eventually(lambda: is_gone(store, due))
        assert (await row(store, due)).end_reason is EndReason.LOST
        assert await row(store, later) == later


async def test_a_home_that_comes_back_destroys_what_was_given_up(store: MemoryStore, tmp_path: Path) -> None:
    async with node(store, tmp_path / "a", "a") as a:
        lost, kept = await a.create(), await a.create()
        await store.mark_gone(lost.id, EndReason.LOST, datetime.now(UTC))
        await a.control.supervision.sweep()
        await eventually(lambda: has_only(a, kept))
        assert (await row(store, lost)).end_reason is EndReason.LOST


async def has_only(node: Node, sandbox: Sandbox) -> bool:
    return [placement.id for placement in await node.engine.list()] == [sandbox.id]


async def test_two_servers_with_one_identity_do_not_work_together(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warren.control.servers._BEAT", timedelta(milliseconds=200))
    async with node(store, tmp_path / "a", "original"):
        copy = Servers(me=(await store.servers())[0], store=store, clock=SystemClock(), audit=MemoryAudit())
        with pytest.raises(Unavailable, match=r"'original' runs with the same identity.*server-id"):
            await copy.refuse_twin()
    await copy.refuse_twin()


def test_an_identity_stays_and_a_copied_folder_is_known(tmp_path: Path) -> None:
    original, copied = tmp_path / "a", tmp_path / "b"
    for folder in (original, copied):
        folder.mkdir()
    first = load_identity(original)
    assert first.settled
    assert load_identity(original) == first
    (copied / "server-id").write_bytes((original / "server-id").read_bytes())
    again = load_identity(copied)
    assert again == replace(first, settled=False)
    settle(copied, again)
    assert load_identity(copied) == first


def test_heartbeats_fit_the_wait_for_a_kill() -> None:
    """Otherwise the kill of a sandbox whose server just died would be told to come back."""
    assert limits.SERVER_BEAT_S * (limits.SERVER_LOOKS_BEFORE_AWAY + 2) < limits.WISH_DEADLINE_S


async def test_servers_that_start_together_share_one_default_project(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path / 'warren.db'}")
    await store.open()
    keys = [Keys(store=store, clock=SystemClock(), ids=SystemIds()) for _ in range(4)]
    found = await asyncio.gather(*(one.default_project() for one in keys))
    assert len({project.id for project in found}) == len(await store.projects()) == 1
    await store.close()
