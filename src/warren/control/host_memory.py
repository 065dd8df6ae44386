"""Memory of this machine that is free for more sandboxes."""

from pathlib import Path

from warren.model import limits

_KIB_PER_MIB = 1024


def available_mb() -> int:
    """MiB that the kernel could hand out without swapping (`MemAvailable`, proc(5))."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // _KIB_PER_MIB
    raise RuntimeError("cannot find MemAvailable in /proc/meminfo")


def is_memory_short() -> bool:
    """Whether what is kept ahead should go, so that what runs can stay."""
    return available_mb() < limits.POOL_MEMORY_RESERVE_MB
