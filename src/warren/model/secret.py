"""A secret: a name that a project gives to a value which nobody can read back."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

SECRET_ID = re.compile(r"sec_[a-z0-9]{20}")
SECRET_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")


@dataclass(frozen=True, slots=True)
class Secret:
    """What is told of a secret. `version` counts its values from 1; the newest is in force."""

    id: str
    project_id: str
    name: str
    version: int
    created_at: datetime
    updated_at: datetime
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def folded(self) -> str:
        """Names that differ only in case are one name."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class SealedValue:
    """One version's value as it is stored: `text` can be opened with the key called `key_id` and nothing else."""

    project_id: str
    secret_id: str
    version: int
    key_id: str
    text: str
