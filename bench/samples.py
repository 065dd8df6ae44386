"""One measured thing: how often it was done, what it took, and how often it failed."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Samples:
    """`values` are in the unit of the row; a failure has no value but counts."""

    values: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def median(self) -> float | None:
        return statistics.median(self.values) if self.values else None

    @property
    def spread(self) -> tuple[float, float] | None:
        return (min(self.values), max(self.values)) if self.values else None

    def measure(self, times: int, action: Callable[[], float]) -> "Samples":
        """`action` returns its own value; whatever it raises is a failure, not the end of the bench."""
        for _ in range(times):
            try:
                self.values.append(action())
            except Exception as error:
                self.failures.append(f"{type(error).__name__}: {error}".splitlines()[0][:160])
        return self


def milliseconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return (time.perf_counter() - started) * 1000


def mib_per_s(size: int, action: Callable[[], object]) -> float:
    return size / 1024 / 1024 / (milliseconds(action) / 1000)


def available_mib() -> float:
    """MemAvailable of the whole machine: what a sandbox costs, whoever it is charged to."""
    with open("/proc/meminfo") as info:
        for line in info:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) / 1024
    raise RuntimeError("cannot find MemAvailable in /proc/meminfo")
