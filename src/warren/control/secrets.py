"""Secrets of projects: stored sealed, described to their owners, never given back."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import structlog

from warren.contracts.clock import Clock, Ids
from warren.contracts.store import SecretQuery, Store
from warren.control.sealing import CannotOpen, Keyring
from warren.model import limits
from warren.model.errors import BadRequest, LimitReached, SecretNotFound
from warren.model.project import Project
from warren.model.secret import SECRET_ID, SECRET_NAME, Secret

log = structlog.get_logger(__name__)


class Secrets:
    """A secret is found by its id or its name; SecretNotFound for what is not there or another project's."""

    def __init__(self, *, store: Store, clock: Clock, ids: Ids, keyring: Keyring) -> None:
        self._store, self._clock, self._ids, self._keyring = store, clock, ids, keyring

    async def create(self, project: Project, name: str, value: str, metadata: Mapping[str, str]) -> Secret:
        """Raises BadRequest, AlreadyExists, LimitReached."""
        if not SECRET_NAME.fullmatch(name) or SECRET_ID.fullmatch(name):
            raise BadRequest("cannot use that name for a secret: write 1 to 128 of a-z A-Z 0-9 _ -, not like an id")
        now = self._clock.now()
        secret = Secret(self._ids.secret_id(), project.id, name, 1, now, now, metadata)
        quota = project.limits.secrets
        if not await self._store.add_secret(secret, self._keyring.seal(secret, value), quota):
            raise LimitReached(f"cannot keep another secret: the project's limit is {quota} (secrets); delete some")
        return secret

    async def update(self, project: Project, reference: str, value: str, metadata: Mapping[str, str] | None) -> Secret:
        """A new version, in force from now on; None keeps the metadata. Two updates at once make two versions."""
        while True:
            secret = await self.get(project, reference)
            newer = replace(
                secret,
                version=secret.version + 1,
                updated_at=self._clock.now(),
                metadata=secret.metadata if metadata is None else metadata,
            )
            if await self._store.renew_secret(newer, self._keyring.seal(newer, value)):
                return newer

    async def get(self, project: Project, reference: str) -> Secret:
        found = await self._store.find_secret(project.id, reference)
        if found is None:
            raise SecretNotFound(f"cannot find the secret {reference!r}, or it is not yours")
        return found

    async def list(self, query: SecretQuery) -> Sequence[Secret]:
        return await self._store.secrets(query)

    async def delete(self, project: Project, reference: str) -> None:
        """With all its versions."""
        secret = await self.get(project, reference)
        if not await self._store.remove_secret(project.id, secret.id):
            raise SecretNotFound(f"cannot find the secret {reference!r}, or it is not yours")

    async def reseal(self) -> None:
        """Bring every value under the key in force; say which cannot be opened any more."""
        renewed, lost = 0, dict[str, int]()
        after = ("", 0)
        while values := await self._store.values_under_other_keys(self._keyring.current, after, limits.RESEAL_BATCH):
            for value in values:
                try:
                    await self._store.replace_value(value, self._keyring.renewed(value))
                    renewed += 1
                except CannotOpen:
                    lost[value.key_id] = lost.get(value.key_id, 0) + 1
            after = (values[-1].secret_id, values[-1].version)
        if renewed:
            log.info("values of secrets sealed anew; lines below the first of the key file can go", count=renewed)
        for key_id, count in lost.items():
            log.error("cannot open values of secrets: their key is not in the key file", key_id=key_id, count=count)
