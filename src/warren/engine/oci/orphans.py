"""Commands of runtimes that outlived the server that began them, and are still at work.

Nobody tells them of its end. One that is slow would start a sandbox which the next server has cleared away, write to a
checkpoint which it has erased, or stop a kernel which it has just let go on. So a new server ends them before it looks
at anything. To tie them to the server's life would not do: what stops or wakes a kernel has to come to its end, or
nobody knows which of both the kernel did. One that wakes it may take as long as the kernel saves: it is left alone, and
whoever wakes or stops that sandbox next waits for it (`resuming.py`).
"""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from warren.engine.oci import resuming
from warren.engine.oci.places import Places
from warren.engine.oci.process import ProcessId, kill, wait_over
from warren.model import limits
from warren.model.errors import EngineFailed

SANDBOXES = frozenset({"runsc-sandbox", "runsc-gofer"})
"""What a sentry and its gofer call themselves; the rest of their command line is that of a command."""
STANDSTILL = frozenset({"pause", "resume"})

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Orphan:
    process: ProcessId
    words: Sequence[str]


def end_orphans(places: Places) -> None:
    """Blocks until they are gone, but for what still wakes a kernel. Raises EngineFailed.

    Call it while no command of this server runs.
    """
    found = list(_orphans(places))
    brief = [orphan for orphan in found if STANDSTILL.intersection(orphan.words)]
    _end([orphan for orphan in found if orphan not in brief], patience_s=0)
    for orphan in _end(brief, limits.FREEZE_DEADLINE_S):
        folder = places.sandboxes / [word for word in orphan.words if word][-1]
        if folder.is_dir():
            resuming.note(folder, orphan.process)


def _end(orphans: Sequence[Orphan], patience_s: float) -> list[Orphan]:
    """Those that are left alone."""
    left: list[Orphan] = []
    ends = time.monotonic() + patience_s
    for orphan in orphans:
        pidfd = orphan.process.open()
        if pidfd is None:
            continue
        try:
            log.warning("command of an earlier server is still at work", pid=orphan.process.pid, words=orphan.words)
            if wait_over(pidfd, max(0.0, ends - time.monotonic())):
                continue
            if "resume" in orphan.words:
                left.append(orphan)
                continue
            kill(pidfd)
            if not wait_over(pidfd, limits.KILL_DEADLINE_S):
                raise EngineFailed(f"cannot end process {orphan.process.pid}, a command of an earlier server")
        finally:
            os.close(pidfd)
    return left


def _orphans(places: Places) -> Iterator[Orphan]:
    """A process's words say whose it is: no two servers of a machine have the same run folder at a time."""
    marks = {f"--root={places.runsc_root}", f"--root={places.crun_root}"}
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        # Before the words: they must not be those of another process that got the same number meanwhile.
        process = ProcessId.of(int(entry.name))
        with contextlib.suppress(OSError):
            words = Path(entry.path, "cmdline").read_bytes().decode(errors="replace").split("\0")
            # Words can be made up: those of a process in a sandbox, which is nobody's root here, are not looked at.
            if process and marks.intersection(words) and words[0] not in SANDBOXES and _is_root_s(entry):
                yield Orphan(process, words)


def _is_root_s(entry: "os.DirEntry[str]") -> bool:
    return entry.stat().st_uid == 0
