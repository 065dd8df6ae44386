"""Time and identifiers come from outside, so that tests decide both."""

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """The present, aware, in UTC, with microseconds."""
        ...

    async def sleep_until(self, when: datetime) -> None:
        """Return when `now() >= when`; also soon after the wall clock jumped past it.

        One that is set back lets nobody wait longer than it was until `when` at the time of the call.
        """
        ...


class Ids(Protocol):
    def sandbox_id(self) -> str:
        """A new id that matches `model.sandbox.SANDBOX_ID`, not guessable."""
        ...

    def checkpoint_id(self) -> str:
        """A new id that matches `model.snapshot.CHECKPOINT_ID`, not guessable."""
        ...

    def snapshot_id(self) -> str:
        """A new id that matches `model.snapshot.SNAPSHOT_ID`, not guessable."""
        ...

    def volume_id(self) -> str:
        """A new id that matches `model.volume.VOLUME_ID`, not guessable."""
        ...

    def secret_id(self) -> str:
        """A new id that matches `model.secret.SECRET_ID`, not guessable."""
        ...

    def template_id(self) -> str:
        """A new id of small letters and digits, not guessable."""
        ...

    def uuid(self) -> str:
        """A new random UUID in text form."""
        ...

    def secret(self) -> str:
        """40 hex digits from the system's entropy, for a key or token."""
        ...
