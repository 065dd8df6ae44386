"""The freezer of cgroups: every process of a sandbox stands still, in memory, until it is thawed.

Not for gVisor, whose kernel stops by itself: frozen for more than a moment and thawed, every program that a sentry then
started died of a segmentation fault (Linux 6.18, cgroup v1, systrap).
"""

import time
from pathlib import Path

from warren.engine.oci.cgroup import Cgroups
from warren.model import limits
from warren.model.errors import EngineFailed

PAUSE_S = 0.002


class Freezer:
    """On both layouts. What is frozen stays so, whatever becomes of the server. Blocks."""

    def __init__(self, cgroups: Cgroups) -> None:
        self._cgroups = cgroups

    def freeze(self, sandbox_id: str) -> None:
        """Idempotent. Returns when the last process stands still."""
        self._set(sandbox_id, frozen=True)

    def thaw(self, sandbox_id: str) -> None:
        """Idempotent."""
        self._set(sandbox_id, frozen=False)

    def is_frozen(self, sandbox_id: str) -> bool:
        """Also while it is only on its way there. False for a sandbox without a group."""
        try:
            return self._switch(sandbox_id).read_text().strip() not in ("0", "THAWED")
        except OSError:
            return False

    def _set(self, sandbox_id: str, *, frozen: bool) -> None:
        value = ("1" if frozen else "0") if self._cgroups.is_v2 else ("FROZEN" if frozen else "THAWED")
        ends = time.monotonic() + limits.FREEZE_DEADLINE_S
        try:
            self._switch(sandbox_id).write_text(value)
            while self._is_still(sandbox_id) is not frozen:
                if time.monotonic() > ends:
                    raise EngineFailed(f"cannot {'freeze' if frozen else 'thaw'} sandbox {sandbox_id} in time")
                time.sleep(PAUSE_S)  # noqa: TID251  # v1 has no event for it; this is a thread
        except OSError as error:
            raise EngineFailed(f"cannot freeze or thaw sandbox {sandbox_id}: {error.strerror}") from None

    def _is_still(self, sandbox_id: str) -> bool:
        if self._cgroups.is_v2:
            events = (self._switch(sandbox_id).parent / "cgroup.events").read_text().splitlines()
            return "frozen 1" in events
        return self._switch(sandbox_id).read_text().strip() == "FROZEN"

    def _switch(self, sandbox_id: str) -> Path:
        controller, name = ("", "cgroup.freeze") if self._cgroups.is_v2 else ("freezer", "freezer.state")
        return self._cgroups.folder(controller, sandbox_id) / name
