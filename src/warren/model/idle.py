"""The idle ladder: how deep a sandbox that nobody uses may sleep, by how long it has been idle."""

import enum
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from warren.model import limits
from warren.model.errors import BadRequest

EVERY_TEMPLATE = "*"
LEFT_OUT = "-"
_SECONDS = re.compile(r"[0-9]{1,9}")


class Step(enum.IntEnum):
    """Each saves more than the one before, and takes longer to wake from."""

    RUNNING = 0
    FROZEN = 1
    """Its processes stand still: no CPU."""
    RECLAIMED = 2
    """And the memory that it can do without is taken back."""
    ON_DISK = 3
    """Memory and files are on disk; the machine has the rest back."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """Seconds of idleness after which each step is taken; None for a step that is left out. Raises BadRequest."""

    freeze_s: int | None = None
    reclaim_s: int | None = None
    disk_s: int | None = None

    def __post_init__(self) -> None:
        given = [after for after in (self.freeze_s, self.reclaim_s, self.disk_s) if after is not None]
        if given != sorted(given):
            raise BadRequest(f"cannot use the idle ladder {self}: each step comes after the one before it")
        if given and not 1 <= given[0] <= given[-1] <= limits.IDLE_MAX_S:
            raise BadRequest(f"cannot use the idle ladder {self}: each step comes after 1 to {limits.IDLE_MAX_S} s")

    @classmethod
    def parse(cls, text: str) -> "Ladder":
        """`60/300/1800`, with `-` for a step that is left out. Raises BadRequest."""
        parts = text.split("/")
        if len(parts) != len(Step) - 1 or not all(part == LEFT_OUT or _SECONDS.fullmatch(part) for part in parts):
            raise BadRequest(
                f"cannot use the idle ladder {text!r}: write freeze/reclaim/disk in seconds, `-` for a step left out"
            )
        return cls(*(None if part == LEFT_OUT else int(part) for part in parts))

    def __str__(self) -> str:
        steps = (self.freeze_s, self.reclaim_s, self.disk_s)
        return "/".join(LEFT_OUT if after is None else str(after) for after in steps)

    def step_after(self, idle: timedelta) -> Step:
        """The deepest step that this much idleness has earned."""
        seconds = idle.total_seconds()
        earned = Step.RUNNING
        for step, after in (
            (Step.FROZEN, self.freeze_s),
            (Step.RECLAIMED, self.reclaim_s),
            (Step.ON_DISK, self.disk_s),
        ):
            if after is not None and seconds >= after:
                earned = step
        return earned


def parse_ladders(words: Sequence[str]) -> Mapping[str, Ladder]:
    """Template name -> its ladder, from words such as `base=60/300/1800` or `*=600/-/-`. Raises BadRequest."""
    found: dict[str, Ladder] = {}
    for word in words:
        name, equals, steps = word.partition("=")
        if not (name and equals) or name in found:
            raise BadRequest(
                f"cannot use WARREN_IDLE entry {word!r}: write template=freeze/reclaim/disk, `*` for every other "
                "template; each template once"
            )
        try:
            found[name] = Ladder.parse(steps)
        except BadRequest as error:
            raise BadRequest(f"cannot use WARREN_IDLE entry {word!r}: {error.message}") from error
    return found


def default_ladder(ladders: Mapping[str, Ladder], names: Iterable[str]) -> Ladder:
    """Of a template with these names, id among them, that says nothing itself: what the server's settings say."""
    return next((ladders[name] for name in (*names, EVERY_TEMPLATE) if name in ladders), Ladder())
