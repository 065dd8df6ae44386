"""API keys and the projects behind them."""

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta

from warren.contracts.clock import Clock, Ids
from warren.contracts.store import Store
from warren.model import limits
from warren.model.errors import AlreadyExists, BadRequest, KeyNotFound, LimitReached, Unauthenticated
from warren.model.project import API_KEY_PREFIX, ApiKey, Project

DEFAULT_PROJECT = "default"
_TOUCH_EVERY = timedelta(minutes=1)
_NAME_MAX = 128


class Keys:
    def __init__(self, *, store: Store, clock: Clock, ids: Ids) -> None:
        self._store, self._clock, self._ids = store, clock, ids
        self._touched: dict[str, datetime] = {}

    async def authenticate(self, secret: str) -> tuple[ApiKey, Project]:
        """Who holds this key. Raises Unauthenticated for an unknown or revoked one."""
        owner = await self._store.key_owner(digest(secret))
        if owner is None:
            raise Unauthenticated("cannot accept this API key: it is unknown or was revoked")
        key, now = owner[0], self._clock.now()
        if now - self._touched.get(key.id, now - _TOUCH_EVERY) >= _TOUCH_EVERY:
            self._touched[key.id] = now
            await self._store.touch_key(key.id, now)
        return owner

    async def default_project(self) -> Project:
        """The project that a new installation has; made on first use."""
        if (found := await self._find_default()) is not None:
            return found
        project = Project(id=self._ids.uuid(), name=DEFAULT_PROJECT, created_at=self._clock.now())
        try:
            await self._store.add_project(project)
        except AlreadyExists:  # another server was first
            return await self._find_default() or project
        return project

    async def _find_default(self) -> Project | None:
        return next((found for found in await self._store.projects() if found.name == DEFAULT_PROJECT), None)

    async def create(self, project: Project, name: str) -> tuple[ApiKey, str]:
        """A new key and its secret, which is nowhere else from then on. Raises BadRequest, LimitReached."""
        _check_name(name)
        if len(await self._store.keys(project.id)) >= limits.PROJECT_MAX_KEYS:
            raise LimitReached(f"cannot create another key: the project's limit is {limits.PROJECT_MAX_KEYS} (keys)")
        secret = API_KEY_PREFIX + self._ids.secret()
        key = ApiKey(
            id=self._ids.uuid(),
            project_id=project.id,
            name=name,
            digest=digest(secret),
            mask=f"{secret[:6]}...{secret[-4:]}",
            created_at=self._clock.now(),
        )
        await self._store.add_key(key)
        return key, secret

    async def list(self, project: Project) -> Sequence[ApiKey]:
        return await self._store.keys(project.id)

    async def rename(self, project: Project, key_id: str, name: str) -> None:
        _check_name(name)
        if not await self._store.rename_key(project.id, key_id, name):
            raise KeyNotFound

    async def revoke(self, project: Project, key_id: str) -> None:
        """From the next request on the key is unknown. Raises KeyNotFound."""
        if not await self._store.revoke_key(project.id, key_id):
            raise KeyNotFound


def digest(secret: str) -> str:
    """Keys have 160 bits of entropy, so a plain hash is enough: there is nothing to guess."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _check_name(name: str) -> None:
    if not 1 <= len(name) <= _NAME_MAX or not name.isprintable():
        raise BadRequest(f"cannot use that key name: 1 to {_NAME_MAX} printable characters")
