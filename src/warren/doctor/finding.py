"""What the doctor says about one requirement."""

from dataclasses import dataclass
from enum import StrEnum


class Weight(StrEnum):
    REQUIRED = "required"
    """Sandboxes cannot run without it."""
    ADVISED = "advised"
    """Something is slower, smaller or less comfortable without it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """found: what is there, in a few words; None when nothing is. remedy: what to do when it is not ok."""

    name: str
    found: str | None
    ok: bool
    why: str
    remedy: str
    weight: Weight = Weight.REQUIRED

    @property
    def blocks(self) -> bool:
        return not self.ok and self.weight is Weight.REQUIRED
