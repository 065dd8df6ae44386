"""The REST application over the in-memory engine, guest and store: no runtime, no socket."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from warren.api.app import create_app
from warren.audit.memory import MemoryAudit
from warren.contracts.building import Builder
from warren.contracts.store import Store
from warren.control.keys import Keys
from warren.control.work import Work
from warren.engine.fake.engine import FakeEngine
from warren.guest.fake import FakeGuest
from warren.guest.fake_workshop import FakeWorkshop
from warren.model.project import Project, ProjectLimits
from warren.model.sandbox import Resources
from warren.model.template import Template
from warren.settings import Settings
from warren.store.memory import MemoryStore
from warren.store.sql import SqlStore
from warren.wiring.control import Control, build_control

BASE = Template(
    id="tbase",
    project_id=None,
    names=("base",),
    build_id="0d3c2a34-4b6e-4f63-9c30-111111111111",
    digest="sha256:" + "0" * 64,
    resources=Resources(),
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
)


@dataclass
class ApiServer:
    client: httpx.AsyncClient
    control: Control
    engine: FakeEngine
    guest: FakeGuest
    store: Store
    project: Project
    key: str
    audit: MemoryAudit
    work: Work
    workshop: FakeWorkshop

    async def other_project(self, **limits: int) -> dict[str, str]:
        """Headers of a key of another project."""
        project = Project(
            id="6a1f3c9e-0000-4000-8000-000000000002",
            name="other",
            created_at=datetime.now(UTC),
            limits=ProjectLimits(**limits),
        )
        await self.store.add_project(project)
        _, secret = await self.control.context.keys.create(project, "other")
        return {"X-API-KEY": secret}


@asynccontextmanager
async def api_server(
    state: Path, sql: bool = False, url: str = "", builder: Builder | None = None, builds: bool = True, **settings: Any
) -> AsyncGenerator[ApiServer]:
    """`settings` in place of their defaults; without the pool, which only some tests want.

    `sql`: on SQLite, for tests of what a real database makes of odd values; `url`: on that database.
    """
    engine, guest, audit, workshop = FakeEngine(), FakeGuest(), MemoryAudit(), FakeWorkshop()
    url = url or (f"sqlite:///{state / 'warren.db'}" if sql else "")
    store: Store = SqlStore(url) if url else MemoryStore()
    await engine.open()
    await store.open()
    await store.put_template(BASE)
    async with Work() as work:
        chosen = Settings(**{"state_dir": state, "pool_sandboxes": 0} | settings)
        control = build_control(
            chosen, engine, guest, store, work, audit=audit, workshop=workshop if builds else None, builder=builder
        )
        work.spawn(control.supervision.run(), "supervision")
        keys: Keys = control.context.keys
        project = await keys.default_project()
        _, secret = await keys.create(project, "test")
        transport = httpx.ASGITransport(app=create_app(control.context), raise_app_exceptions=False)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://warren", headers={"X-API-KEY": secret}
        ) as client:
            yield ApiServer(client, control, engine, guest, store, project, secret, audit, work, workshop)
    await store.close()
