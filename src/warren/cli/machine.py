"""What the command line is given from outside: the environment, and what only this machine's own Warren can do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from warren.settings import Settings, load


@dataclass(frozen=True, slots=True)
class LocalAccess:
    """The key of this machine's root, and what a client of this machine has to trust."""

    api_key: str
    ca_bundle: Path


@dataclass(frozen=True, slots=True)
class Machine:
    """serve: run the server until it is told to stop. prepare: make key and certificates if they are not there yet.
    transport: what REST calls go through instead of the network."""

    environ: Mapping[str, str]
    is_root: bool
    serve: Callable[[Settings], None]
    prepare: Callable[[Settings], LocalAccess]
    transport: httpx.BaseTransport | None = None

    def settings(self) -> Settings:
        """Raises BadRequest for a variable it cannot read."""
        return load(self.environ)
