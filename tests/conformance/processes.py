"""What the host can see of the processes that a test caused, and waiting for it to change."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

PR_SET_CHILD_SUBREAPER = 36
DEADLINE = 10.0  # seconds that anything observed from outside may take
PAUSE = 0.01  # seconds between two looks; the kernel tells nobody when /proc changes


def adopt_orphans() -> None:
    """Make this process the parent of whatever a stopped guestd leaves behind, so that it can be found."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def stat_of(pid: int) -> tuple[str, int] | None:
    """State letter and parent of a process, or None when there is no such process."""
    try:
        content = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, parent = content.rpartition(")")[2].split()[:2]
    return state, int(parent)


def alive(pid: int) -> bool:
    """Whether a process still runs; one that waits to be reaped does not."""
    found = stat_of(pid)
    return found is not None and found[0] not in "ZX"


def children_of(parent: int, *, zombies: bool = False) -> list[int]:
    found: list[int] = []
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := stat_of(int(name))) is not None and stat[1] == parent:
            if zombies or stat[0] not in "ZX":
                found.append(int(name))
    return sorted(found)


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@contextmanager
def dead_at_last(pid: int) -> Iterator[int]:
    """A process that the test may leave alive: it ends with the block."""
    try:
        yield pid
    finally:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


def eventually(look: Callable[[], T], what: str, deadline: float = DEADLINE) -> T:
    """The first true answer of look; fails when the deadline passes without one."""
    end = time.monotonic() + deadline
    while True:
        answer = look()
        if answer:
            return answer
        if time.monotonic() > end:
            raise TimeoutError(f"cannot see within {deadline} s that {what}")
        time.sleep(PAUSE)
