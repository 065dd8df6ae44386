"""Sandboxes that another server has: what the database can do for them, and the refusal of what only an engine can."""

import asyncio

from warren.contracts.store import Store
from warren.model import limits
from warren.model.errors import SandboxNotFound, ServerAway
from warren.model.project import Project
from warren.model.sandbox import Sandbox, State

_LOOK_EVERY_S = 0.2


class Elsewhere:
    def __init__(self, *, server_id: str, store: Store) -> None:
        self._server_id, self._store = server_id, store

    def has(self, sandbox: Sandbox) -> bool:
        return sandbox.server_id != self._server_id

    async def refuse(self, sandbox: Sandbox) -> None:
        """Raise ServerAway, with the name of the server to ask, for a sandbox that is not here."""
        if self.has(sandbox):
            raise ServerAway(
                f"cannot reach sandbox {sandbox.id} from here: it is on the server {await self._name(sandbox)!r}; "
                "send this request there"
            )

    async def end(self, project: Project, sandbox: Sandbox) -> None:
        """Wish it gone and wait until its server made it so, or is given up itself. Raises ServerAway after that."""
        if await self._store.wish_gone(sandbox.id) is None:
            raise SandboxNotFound.of(sandbox.id)
        try:
            async with asyncio.timeout(limits.WISH_DEADLINE_S):
                while await self._is_there(project, sandbox):  # noqa: ASYNC110 - another process changes it
                    await asyncio.sleep(_LOOK_EVERY_S)
        except TimeoutError:
            raise ServerAway(
                f"cannot see the end of sandbox {sandbox.id} yet: its server {await self._name(sandbox)!r} "
                "was told to end it, and will"
            ) from None

    async def _is_there(self, project: Project, sandbox: Sandbox) -> bool:
        row = await self._store.sandbox(project.id, sandbox.id)
        return row is not None and row.state is not State.GONE

    async def _name(self, sandbox: Sandbox) -> str:
        home = await self._store.home(sandbox.id)
        return "unknown" if home is None else home.name


async def name_of_server(store: Store, server_id: str) -> str:
    return next((server.name for server in await store.servers() if server.id == server_id), "unknown")
