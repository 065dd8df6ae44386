"""What /proc/meminfo says inside: the sandbox's own limit and use, not the machine's."""

from warren.engine.oci.cgroup import CgroupUsage

FILE_BYTES = 4096
"""The file never changes its length, so that a reader never meets half of one state."""
KIB = 1024


def meminfo(total: int, usage: CgroupUsage) -> bytes:
    """One page in the kernel's form. Swap is 0: no sandbox has any."""
    used = min(usage.memory, total)
    cached = min(usage.cache, used)
    rows = {
        "MemTotal": total,
        "MemFree": total - used,
        "MemAvailable": total - used + cached,
        "Buffers": 0,
        "Cached": cached,
        "SwapCached": 0,
        "Active": used - cached,
        "Inactive": cached,
        "SwapTotal": 0,
        "SwapFree": 0,
        "Dirty": 0,
        "Writeback": 0,
        "AnonPages": used - cached,
        "Mapped": 0,
        "Shmem": 0,
        "Slab": 0,
        "SReclaimable": 0,
        "SUnreclaim": 0,
        "CommitLimit": total,
        "Committed_AS": used,
    }
    text = "".join(f"{name + ':':<16}{value // KIB:>8} kB\n" for name, value in rows.items())
    return text.encode().ljust(FILE_BYTES - 1, b" ") + b"\n"
