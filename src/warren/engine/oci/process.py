"""Processes of the host, named so that a reused pid is never taken for the old one."""

import contextlib
import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path

START_TIME_FIELD = 19
"""Of /proc/<pid>/stat, counted after the command's closing bracket: the start time in clock ticks after boot."""


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A pid alone may be given to another process; with its start time it names one process of this boot."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> "ProcessId | None":
        """None when there is no such process, or only its corpse."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in "ZX" else cls(pid, int(fields[START_TIME_FIELD]))

    def open(self) -> int | None:
        """A pidfd, or None when the process is gone. The caller closes it."""
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        if ProcessId.of(self.pid) != self:
            os.close(fd)
            return None
        return fd


def is_over(pidfd: int) -> bool:
    """Whether the process behind a pidfd has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def wait_over(pidfd: int, deadline_s: float) -> bool:
    """Wait for the end of the process behind a pidfd; False when it still runs at the deadline."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(int(deadline_s * 1000)))


def kill(pidfd: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def boot_id() -> str:
    """Of the host: pids and start times mean nothing across a reboot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
