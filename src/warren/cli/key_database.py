"""API keys on the database itself, for when no server runs."""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any

from warren.audit.chain import Chain
from warren.audit.folder import AuditFolder
from warren.cli.rest import Json
from warren.control.clock import SystemClock, SystemIds
from warren.control.keys import Keys
from warren.model.audit import Event, Kind, Outcome
from warren.model.project import ApiKey, Project
from warren.settings import Settings
from warren.store.sql import SqlStore


class DatabaseKeyring:
    """The keys of the default project, for whoever can open the database. Changes go into the audit log."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def create(self, name: str) -> Json:
        async def create(keys: Keys, project: Project) -> Json:
            with self._audited(Kind.KEY_CREATE, project) as about:
                made, secret = await keys.create(project, name)
                about(made.id)
            return _from_model(made) | {"key": secret}

        return asyncio.run(self._use(create))

    def list(self) -> list[Json]:
        async def read(keys: Keys, project: Project) -> list[Json]:
            return [_from_model(row) for row in await keys.list(project)]

        return asyncio.run(self._use(read))

    def revoke(self, key_id: str) -> None:
        async def revoke(keys: Keys, project: Project) -> None:
            with self._audited(Kind.KEY_REVOKE, project) as about:
                await keys.revoke(project, key_id)
                about(key_id)

        asyncio.run(self._use(revoke))

    @contextmanager
    def _audited(self, kind: Kind, project: Project) -> Generator[Callable[[str], None]]:
        """Raises AuditUnavailable before anything is changed."""
        clock = SystemClock()
        with Chain(AuditFolder(self._settings.audit_dir), clock.now()) as chain:

            def about(key_id: str) -> None:
                event = Event(kind, Outcome.ALLOWED, "local_root", f"key:{key_id}", project.id, via="cli")
                chain.append([(clock.now(), event)])
                chain.sync()

            yield about

    async def _use(self, work: Callable[[Keys, Project], Coroutine[Any, Any, Any]]) -> Any:
        store = SqlStore(self._settings.database)
        await store.open()
        try:
            keys = Keys(store=store, clock=SystemClock(), ids=SystemIds())
            return await work(keys, await keys.default_project())
        finally:
            await store.close()


def _from_model(row: ApiKey) -> Json:
    return {
        "id": row.id,
        "name": row.name,
        "mask": row.mask,
        "createdAt": row.created_at.isoformat(),
        "lastUsed": None if row.last_used_at is None else row.last_used_at.isoformat(),
    }
