"""The reference store's part about secrets."""

from collections.abc import Sequence

from warren.contracts.store import SecretQuery
from warren.model import limits
from warren.model.errors import AlreadyExists
from warren.model.secret import SealedValue, Secret


class MemorySecrets:
    def __init__(self) -> None:
        super().__init__()
        self._secrets: dict[str, Secret] = {}
        self._values: dict[tuple[str, int], SealedValue] = {}

    async def add_secret(self, secret: Secret, value: SealedValue, quota: int) -> bool:
        own = [one for one in self._secrets.values() if one.project_id == secret.project_id]
        same = next((one for one in own if one.folded == secret.folded), None)
        if same is not None:
            if same.id == secret.id:
                return True
            raise AlreadyExists(f"cannot create the secret: {secret.name!r} exists")
        if len(own) >= quota:
            return False
        self._secrets[secret.id] = secret
        self._values[secret.id, secret.version] = value
        return True

    async def renew_secret(self, secret: Secret, value: SealedValue) -> bool:
        before = self._secrets.get(secret.id)
        if before is None or (before.project_id, before.version) != (secret.project_id, secret.version - 1):
            return False
        self._secrets[secret.id] = secret
        self._values[secret.id, secret.version] = value
        self._values.pop((secret.id, secret.version - limits.SECRET_VERSIONS_KEPT), None)
        return True

    async def find_secret(self, project_id: str, reference: str) -> Secret | None:
        for one in self._secrets.values():
            if one.project_id == project_id and (one.id == reference or one.folded == reference.lower()):
                return one
        return None

    async def secrets(self, query: SecretQuery) -> Sequence[Secret]:
        wanted = [
            one
            for one in self._secrets.values()
            if one.project_id == query.project_id and (query.after is None or (one.created_at, one.id) < query.after)
        ]
        return sorted(wanted, key=lambda one: (one.created_at, one.id), reverse=True)[: query.limit]

    async def remove_secret(self, project_id: str, secret_id: str) -> bool:
        found = self._secrets.get(secret_id)
        if found is None or found.project_id != project_id:
            return False
        del self._secrets[secret_id]
        self._values = {place: value for place, value in self._values.items() if place[0] != secret_id}
        return True

    async def values_under_other_keys(self, key_id: str, after: tuple[str, int], limit: int) -> Sequence[SealedValue]:
        places = sorted(place for place, value in self._values.items() if value.key_id != key_id and place > after)
        return [self._values[place] for place in places[:limit]]

    async def replace_value(self, old: SealedValue, new: SealedValue) -> None:
        if self._values.get((old.secret_id, old.version)) == old:
            self._values[old.secret_id, old.version] = new
