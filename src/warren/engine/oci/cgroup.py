"""The cgroups of this server's sandboxes, on every layout: v1, v1 with a hybrid v2 mount, v2.

The runtimes make each sandbox's group; this module names it, reads it and removes what they leave.
"""

import contextlib
import errno
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from warren.model.errors import EngineFailed

CGROUP_ROOT = Path("/sys/fs/cgroup")
REMOVE_DEADLINE_S = 2.0
"""Seconds to wait for the processes of a killed group to be gone."""
REMOVE_PAUSE_S = 0.005
LOWER_ATTEMPTS = 5
"""To take memory back from a group that was lent some; the kernel looks through its pages at each."""
LOWER_STEP_BYTES = 4 * 1024 * 1024
PARENT_SHARES, PARENT_WEIGHT_V2 = 512, 50
"""Of the group of all sandboxes; the kernel's default for everybody else is 1024, and 100 with v2."""
COMMAND_SHARES, COMMAND_WEIGHT_V2 = 128, 12
"""Of all runtimes' commands that nobody waits for, beside that group."""
NANOSECONDS = 1_000_000_000
MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class CgroupUsage:
    """Bytes and CPU seconds; `cache` is file pages, and part of `memory`."""

    cpu_seconds: float
    memory: int
    cache: int


class Cgroups:
    """Groups below `/<parent>`, one for each sandbox."""

    def __init__(self, parent: str, root: Path = CGROUP_ROOT) -> None:
        self._parent = parent
        self.root = root
        self.is_v2 = (root / "cgroup.controllers").exists()

    @property
    def is_hybrid(self) -> bool:
        """v1 controllers with a v2 mount beside them, which crun refuses."""
        return not self.is_v2 and (self.root / "unified" / "cgroup.procs").exists()

    def path(self, sandbox_id: str) -> str:
        """As the OCI specification names it."""
        return f"/{self._parent}/{sandbox_id}"

    def usage(self, sandbox_id: str) -> CgroupUsage:
        """Raises EngineFailed when the group is not there."""
        try:
            return self._usage_v2(sandbox_id) if self.is_v2 else self._usage_v1(sandbox_id)
        except (OSError, KeyError, ValueError) as error:
            raise EngineFailed(f"cannot read the cgroup of sandbox {sandbox_id}: {error}") from None

    def _usage_v1(self, sandbox_id: str) -> CgroupUsage:
        memory = self.folder("memory", sandbox_id)
        cpu = int((self.folder("cpuacct", sandbox_id) / "cpuacct.usage").read_text())
        used = int((memory / "memory.usage_in_bytes").read_text())
        stat = _table(memory / "memory.stat")
        return CgroupUsage(cpu / NANOSECONDS, used, stat["total_cache"] - stat.get("total_shmem", 0))

    def _usage_v2(self, sandbox_id: str) -> CgroupUsage:
        group = self.folder("", sandbox_id)
        cpu = _table(group / "cpu.stat")["usage_usec"]
        used = int((group / "memory.current").read_text())
        stat = _table(group / "memory.stat")
        return CgroupUsage(cpu / MICROSECONDS, used, stat["file"] - stat.get("shmem", 0))

    def memory_file(self, sandbox_id: str, name: str) -> Path:
        """A file of the memory controller in a sandbox's group."""
        return self.folder("" if self.is_v2 else "memory", sandbox_id) / name

    def counters(self, sandbox_id: str) -> tuple[tuple[str, Path], ...]:
        """Files in which the guest sees what the kernel has killed, and how many processes there are; none with v2."""
        names = () if self.is_v2 else (("memory", "memory.oom_control"), ("pids", "pids.current"))
        return tuple((f"{kind}/{name}", self.folder(kind, sandbox_id) / name) for kind, name in names)

    def set_memory(self, sandbox_id: str, limit: int) -> None:
        """Set the hard limit of memory and of memory with swap. Raises EngineFailed when more is in use."""
        try:
            if self.is_v2:
                self.memory_file(sandbox_id, "memory.max").write_text(str(limit))
                return
            self._set_memory_v1(sandbox_id, limit)
        except OSError as error:
            raise EngineFailed(f"cannot set the memory of sandbox {sandbox_id}: {error.strerror}") from None

    def _set_memory_v1(self, sandbox_id: str, limit: int) -> None:
        memory = self.memory_file(sandbox_id, "memory.limit_in_bytes")
        with_swap = self.memory_file(sandbox_id, "memory.memsw.limit_in_bytes")
        # The kernel never lets the first one stand above the second.
        files = [with_swap, memory] if int(memory.read_text()) < limit else [memory, with_swap]
        for file in files:
            if file == memory or file.exists():  # a kernel may be without swap accounting
                file.write_text(str(limit))

    def raise_memory(self, sandbox_id: str, limit: int) -> None:
        """As `set_memory`, but leave a limit that stands further out: all of it may be in use. Raises EngineFailed."""
        if self.limit(sandbox_id, "memory.max" if self.is_v2 else "memory.limit_in_bytes") < limit:
            self.set_memory(sandbox_id, limit)

    def limit(self, sandbox_id: str, name: str) -> int:
        """What a file of the memory controller says. Raises EngineFailed."""
        try:
            said = self.memory_file(sandbox_id, name).read_text().strip()
        except OSError as error:
            raise EngineFailed(f"cannot read the memory limit of sandbox {sandbox_id}: {error.strerror}") from None
        return sys.maxsize if said == "max" else int(said)

    def slow_down(self, sandbox_id: str, limit: int) -> None:
        """Set the soft limit of v2: who is above it is slowed down and loses what can be taken. Raises EngineFailed."""
        try:
            self.memory_file(sandbox_id, "memory.high").write_text(str(limit))
        except OSError as error:
            raise EngineFailed(f"cannot set the memory of sandbox {sandbox_id}: {error.strerror}") from None

    def raising(self, sandbox_id: str, limit: int) -> list[str]:
        """A command that does the same for a group with a lower limit, which a runtime will have made by then."""
        names = ("memory.max",) if self.is_v2 else ("memory.memsw.limit_in_bytes", "memory.limit_in_bytes")
        files = [str(self.memory_file(sandbox_id, name)) for name in names]
        optional = 'case $file in *memsw*) [ -e "$file" ] || continue ;; esac'  # as in `set_memory`
        script = f'for file; do {optional}; echo "$0" > "$file" || exit; done'
        return ["/bin/sh", "-c", script, str(limit), *files]

    def reclaim(self, sandbox_id: str) -> int:
        """Have the kernel take back what it can of the group's memory; the bytes by which it became smaller."""
        try:
            before = self._memory_used(sandbox_id)
            switch, value = ("memory.reclaim", str(before)) if self.is_v2 else ("memory.force_empty", "0")
            with contextlib.suppress(BlockingIOError, InterruptedError):  # v2 says so when it took less than asked for
                (self.folder("" if self.is_v2 else "memory", sandbox_id) / switch).write_text(value)
            return max(0, before - self._memory_used(sandbox_id))
        except OSError as error:
            raise EngineFailed(f"cannot reclaim memory of sandbox {sandbox_id}: {error.strerror}") from None

    def _memory_used(self, sandbox_id: str) -> int:
        if self.is_v2:
            return int((self.folder("", sandbox_id) / "memory.current").read_text())
        return int((self.folder("memory", sandbox_id) / "memory.usage_in_bytes").read_text())

    def lower_memory(self, sandbox_id: str, limit: int, attempts: int = LOWER_ATTEMPTS) -> None:
        """Back to `limit`. Who took more meanwhile, and cannot be made to give it back, gets nothing on top of it."""
        with contextlib.suppress(FileNotFoundError):  # a group that has ended needs no limit
            lowered = self._lowered_v2 if self.is_v2 else self._lowered_v1
            if any(lowered(sandbox_id, limit) for _ in range(attempts)):
                return
            lowered(sandbox_id, self._memory_used(sandbox_id) + LOWER_STEP_BYTES)

    def _lowered_v2(self, sandbox_id: str, limit: int) -> bool:
        """False while more is in use: the kernel would set the limit all the same, and end whoever is above it."""
        folder = self.folder("", sandbox_id)
        if (excess := self._memory_used(sandbox_id) - limit) > 0:
            with contextlib.suppress(OSError):  # it cannot take back as much, or is older than Linux 5.19
                (folder / "memory.reclaim").write_text(str(excess))
            if self._memory_used(sandbox_id) > limit:
                return False
        (folder / "memory.max").write_text(str(limit))
        return True

    def _lowered_v1(self, sandbox_id: str, limit: int) -> bool:
        try:
            self._set_memory_v1(sandbox_id, limit)
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False
            raise
        return True

    def open_parent(self) -> None:
        """All sandboxes together weigh half of what the server does, so that it answers however busy they are.

        Beside them, a group for the runtimes' commands that nobody waits for.
        """
        for group, shares, weight in (
            (self.folder(self._cpu, None), PARENT_SHARES, PARENT_WEIGHT_V2),
            (self.background.parent, COMMAND_SHARES, COMMAND_WEIGHT_V2),
        ):
            try:
                group.mkdir(exist_ok=True)
                self._weigh(group, shares, weight)
            except OSError as error:
                raise EngineFailed(f"cannot make cgroup {group}: {error.strerror}; run `warren doctor`") from None

    @property
    def background(self) -> Path:
        """The file by which a command goes into the group of those that nobody waits for."""
        return self.root / self._cpu / f"{self._parent}_background" / ("cgroup.procs" if self.is_v2 else "tasks")

    def set_shares(self, sandbox_id: str, shares: int) -> None:
        """How much a sandbox weighs where several want the processors. Raises EngineFailed."""
        try:
            self._weigh(self.folder(self._cpu, sandbox_id), shares, v2_weight(shares))
        except OSError as error:
            raise EngineFailed(f"cannot set the weight of sandbox {sandbox_id}: {error.strerror}") from None

    @property
    def _cpu(self) -> str:
        return "" if self.is_v2 else "cpu"

    def _weigh(self, group: Path, shares: int, weight: int) -> None:
        file, value = ("cpu.weight", weight) if self.is_v2 else ("cpu.shares", shares)
        with contextlib.suppress(FileNotFoundError):  # v2: the controller is not given to us
            (group / file).write_text(str(value))

    def pids(self, sandbox_id: str) -> set[int]:
        found: set[int] = set()
        for group in self._groups(sandbox_id):
            for procs in group.glob("**/cgroup.procs"):
                with contextlib.suppress(OSError):
                    found.update(int(line) for line in procs.read_text().split())
        return found

    def remove(self, sandbox_id: str) -> None:
        """Remove what a runtime left of a group, once its processes are gone. Raises EngineFailed."""
        ends = time.monotonic() + REMOVE_DEADLINE_S
        while groups := [group for group in self._groups(sandbox_id) if not _removed(group)]:
            if time.monotonic() > ends:
                raise EngineFailed(f"cannot remove cgroup {groups[0]}: it still holds processes")
            time.sleep(REMOVE_PAUSE_S)  # noqa: TID251  # no event says that a group is empty; this is a thread

    def remove_parent(self) -> None:
        for group in (*self._groups(None), self.background.parent):
            _removed(group)

    def children(self) -> set[str]:
        """Ids of the sandboxes that have a group."""
        return {entry.name for group in self._groups(None) for entry in group.iterdir() if entry.is_dir()}

    def _groups(self, sandbox_id: str | None) -> list[Path]:
        """In every hierarchy there is: a runtime makes one in each, also where nobody here asks for it."""
        with os.scandir(self.root) as entries:
            kinds = [""] if self.is_v2 else [each.name for each in entries if each.is_dir(follow_symlinks=False)]
        return [group for kind in kinds if (group := self.folder(kind, sandbox_id)).is_dir()]

    def folder(self, controller: str, sandbox_id: str | None) -> Path:
        """Of one controller of v1; of the one hierarchy of v2 with an empty name."""
        parent = self.root / controller / self._parent
        return parent if sandbox_id is None else parent / sandbox_id


def v2_weight(shares: int) -> int:
    """As the runtimes turn v1's shares, 2 to 262144, into v2's weight, 1 to 10000."""
    return 1 + (shares - 2) * 9999 // 262142


def _removed(group: Path) -> bool:
    try:
        for child in [Path(entry.path) for entry in os.scandir(group) if entry.is_dir(follow_symlinks=False)]:
            _removed(child)
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _table(path: Path) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in path.read_text().splitlines())}
