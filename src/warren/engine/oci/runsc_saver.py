"""Standstill, checkpoint and waking of a sandbox under gVisor.

Two images are written while the kernel inside stands still: `files`, the writable layer alone, for a boot from it, and
`memory`, which has everything, the layer's content included. Both are written by the sentry and read by a sentry.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from warren.engine.oci.command import run
from warren.engine.oci.manifest import PARTS
from warren.engine.oci.resuming import await_earlier, resume
from warren.model import limits
from warren.model.snapshot import SnapshotKind

PAUSED = "paused"
KEPT_NOTE = "runsc-note"
"""In a sandbox's folder: runsc's note about it, as it was before the standstill."""
DISK_IS_FULL = ("no space left on device", "disk quota exceeded")


class RunscSaver:
    """`command` is runsc with the options of all its calls; `root` is where it keeps its notes. Blocks."""

    def __init__(self, command: Sequence[str], root: Path) -> None:
        self._command = command
        self._root = root

    def halt(self, sandbox_id: str, folder: Path) -> None:
        """Stop the kernel inside. Idempotent."""
        note = self._note(sandbox_id)
        await_earlier(sandbox_id, folder)
        if self.mend(sandbox_id, folder) != PAUSED:
            # runsc overwrites its note in place: killed half-way it would leave nothing that runsc can work with.
            shutil.copyfile(note, folder / KEPT_NOTE)
            run(f"halt sandbox {sandbox_id}", [*self._command, "pause", sandbox_id], limits.FREEZE_DEADLINE_S)

    def save(self, sandbox_id: str, target: Path, kind: SnapshotKind) -> None:
        """Write the images of a halted sandbox below `target`. Raises NoSpace when the disk is full."""
        self._write("fscheckpoint", sandbox_id, target / PARTS[SnapshotKind.FILESYSTEM])
        if kind is SnapshotKind.MEMORY:
            self._write("checkpoint", sandbox_id, target / PARTS[kind])

    def wake(self, sandbox_id: str, folder: Path) -> None:
        """Let a halted kernel go on. Idempotent."""
        await_earlier(sandbox_id, folder)
        if self.mend(sandbox_id, folder) == PAUSED:
            resume(sandbox_id, [*self._command, "resume", sandbox_id], folder)
        (folder / KEPT_NOTE).unlink(missing_ok=True)

    def mend(self, sandbox_id: str, folder: Path) -> str:
        """What runsc's note says of the sandbox; one that a crash left torn is put back first."""
        note = self._note(sandbox_id)
        status = _status(note)
        if status is None and (folder / KEPT_NOTE).exists():
            # It is torn only once the kernel has been stopped: runsc writes it after that.
            whole = {**json.loads((folder / KEPT_NOTE).read_text()), "status": PAUSED}
            note.write_text(json.dumps(whole))
            return PAUSED
        return status or ""

    def make_legible(self, sandbox_id: str, folder: Path) -> None:
        """See to it that runsc can delete the sandbox: it refuses one whose note it cannot read, then and for ever.

        Without a note it removes nothing, and what there is of the sandbox is left to whoever ends its cgroup.
        """
        if not self.mend(sandbox_id, folder):
            self._note(sandbox_id).unlink(missing_ok=True)

    def _write(self, verb: str, sandbox_id: str, target: Path) -> None:
        argv = [*self._command, verb, "--leave-running", f"--image-path={target}", sandbox_id]
        run(f"save sandbox {sandbox_id}", argv, limits.CHECKPOINT_DEADLINE_S, is_full=_is_full)

    def _note(self, sandbox_id: str) -> Path:
        return self._root / f"{sandbox_id}_sandbox:{sandbox_id}.state"


def _is_full(said: str) -> bool:
    """It may stand far behind: where memory is half written, runsc tells whole objects and stacks before it."""
    return any(words in said for words in DISK_IS_FULL)


def _status(note: Path) -> str | None:
    try:
        document: Any = json.loads(note.read_text())
    except (OSError, ValueError):
        return None
    return str(cast("dict[str, Any]", document).get("status", "")) if isinstance(document, dict) else None
