"""Memory of a process, by the kernel's own word."""

from pathlib import Path


def resident(pid: int) -> int:
    """Bytes that are in memory now."""
    return _status(pid, "VmRSS")


def peak(pid: int) -> int:
    """The most that ever were, or since `forget_peak`."""
    return _status(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
