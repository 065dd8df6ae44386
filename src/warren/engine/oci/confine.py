"""Cgroups of v1, made and entered by ourselves.

crun moves its child into the groups by process, for which the kernel waits out a grace period of all processors:
15 ms and more for each start. A thread that moves only itself waits for nothing, and what it starts is born there.
gVisor makes its own groups: it reads the sizes that it tells the sandbox from them.
"""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from warren.engine.oci.bundle import CPU_PERIOD_US, DEVICE_NUMBERS, MIB, cpu_shares
from warren.model.errors import EngineFailed
from warren.model.sandbox import Resources

SOCKET_SHARE = 4
"""What waits in sockets may fill one quarter as much as the memory, on top of it: cgroup v1 counts it apart."""
CONTROLLERS = ("memory", "cpu", "cpuacct", "pids", "devices", "freezer")
"""Not cpuset and blkio: nothing is limited by them."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One line for one file of a group; an optional one is skipped where the kernel has no such file."""

    controller: str
    file: str
    value: str
    optional: bool = False


def settings(resources: Resources, *, in_background: bool = False) -> Sequence[Setting]:
    """Memory without swap, processor time, processes, devices. In the order in which the kernel takes them."""
    memory = str(resources.memory_mb * MIB)
    in_sockets = str(resources.memory_mb * MIB // SOCKET_SHARE)
    return [
        Setting("memory", "memory.limit_in_bytes", memory),
        Setting("memory", "memory.memsw.limit_in_bytes", memory, optional=True),
        Setting("memory", "memory.swappiness", "0", optional=True),
        Setting("memory", "memory.kmem.tcp.limit_in_bytes", in_sockets, optional=True),
        Setting("cpu", "cpu.cfs_period_us", str(CPU_PERIOD_US)),
        Setting("cpu", "cpu.cfs_quota_us", str(resources.cpu_count * CPU_PERIOD_US)),
        Setting("cpu", "cpu.shares", str(cpu_shares(resources.cpu_count, in_background=in_background))),
        Setting("pids", "pids.max", str(resources.pids)),
        Setting("devices", "devices.deny", "a"),
        *(Setting("devices", "devices.allow", f"c {major}:{minor} rw") for major, minor in _numbers()),
    ]


def _numbers() -> Iterable[tuple[int, int | str]]:
    return ((major, "*" if minor is None else minor) for major, minor in DEVICE_NUMBERS)


def confine_this_thread(root: Path, group: str, resources: Resources, *, in_background: bool = False) -> None:
    """Make the group of a sandbox and move the calling thread into it, never to leave: let it end soon."""
    try:
        for controller in CONTROLLERS:
            (root / controller / group.lstrip("/")).mkdir(parents=True, exist_ok=True)
        for setting in settings(resources, in_background=in_background):
            with contextlib.suppress(*([FileNotFoundError] if setting.optional else [])):
                (root / setting.controller / group.lstrip("/") / setting.file).write_text(setting.value)
        for controller in CONTROLLERS:
            (root / controller / group.lstrip("/") / "tasks").write_text("0")
    except OSError as error:
        raise EngineFailed(f"cannot confine a sandbox in cgroup {group}: {error}; run `warren doctor`") from error
