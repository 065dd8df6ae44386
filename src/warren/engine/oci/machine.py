"""What this machine has: memory, and the disk of the state folder."""

import os
from pathlib import Path

from warren.model.room import Machine

KIB_PER_MIB = 1024
MIB = 1024 * 1024
MEMINFO = Path("/proc/meminfo")


def machine_of(state: Path, meminfo: Path = MEMINFO) -> Machine:
    total, available = memory_of(meminfo)
    disk = os.statvfs(state)
    return Machine(
        memory_total=total,
        memory_available=available,
        disk_total=disk.f_blocks * disk.f_frsize // MIB,
        disk_free=disk.f_bavail * disk.f_frsize // MIB,
    )


def memory_of(meminfo: Path = MEMINFO) -> tuple[int, int]:
    """MiB: all that there is, and what could be given away now."""
    rows = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    total, available = (int(rows[name].split()[0]) // KIB_PER_MIB for name in ("MemTotal", "MemAvailable"))
    return total, available
