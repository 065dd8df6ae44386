"""Processors are shared by weight: between sandboxes, and between all of them and the server."""

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.security.lab import engine_of_ones_own, settings_of_ones_own, shell, start
from warren.engine.oci.engine import OciEngine
from warren.model.sandbox import Resources

pytestmark = [pytest.mark.root, pytest.mark.alone, pytest.mark.anyio, pytest.mark.timeout(240)]

ALL = os.cpu_count() or 1
SIZE = Resources(cpu_count=ALL, memory_mb=256, disk_mb=128, pids=200)
ACCOUNTS = Path("/sys/fs/cgroup/cpuacct")
ENOUGH_S = 2.0
"""Seconds of a processor after which shares show."""
WINDOWS = 6
"""Tries, one behind the other: the kernel takes some seconds to spread threads over the processors. Without weights
the one with few threads would have a twentieth in each of them."""
FAIR = 0.6
"""Least part of an equal share that the one with few threads gets beside the one with many."""
SPIN = "for _ in $(seq {}); do setsid sh -c 'while :; do :; done' > /dev/null 2>&1 & done"


async def beside(one: Callable[[], float], other: Callable[[], float]) -> tuple[float, float]:
    """Seconds of a processor that each takes until one has had enough."""
    before = one(), other()
    while max(taken := (one() - before[0], other() - before[1])) < ENOUGH_S:
        await asyncio.sleep(0.1)
    return taken


def used(engine: OciEngine, sandbox_id: str) -> float:
    return engine._cgroups.usage(sandbox_id).cpu_seconds


@pytest.mark.threat("C7")
async def test_who_has_many_threads_gets_no_more_than_who_has_few(runtime: str, probes: Path, tmp_path: Path) -> None:
    async with engine_of_ones_own(settings_of_ones_own(runtime, tmp_path, probes)) as engine:
        many, few = [await start(engine, runtime, size=SIZE) for _ in range(2)]
        for box, threads in ((many, 40), (few, ALL)):
            await asyncio.to_thread(shell, box.address, SPIN.format(threads))
        for _ in range(WINDOWS):
            fews, manys = await beside(lambda: used(engine, few.id), lambda: used(engine, many.id))
            if fews >= FAIR * manys:
                break
        assert fews >= FAIR * manys


@pytest.mark.threat("C7")
async def test_the_server_s_side_gets_more_than_all_sandboxes_together(
    runtime: str, probes: Path, tmp_path: Path
) -> None:
    """One thread beside them, on one processor: the kernel's words on who had that one."""
    per_processor = ACCOUNTS / "cpuacct.usage_percpu"
    if not per_processor.exists():
        pytest.skip("this kernel does not tell the time of each processor apart")
    settings = settings_of_ones_own(runtime, tmp_path, probes)
    async with engine_of_ones_own(settings) as engine:
        for box in [await start(engine, runtime, size=SIZE) for _ in range(3)]:
            await asyncio.to_thread(shell, box.address, SPIN.format(20))
        group = ACCOUNTS / f"warren_{settings.bridge}" / "cpuacct.usage_percpu"

        def theirs() -> float:
            return int(group.read_text().split()[0]) / 1e9

        spinner = await asyncio.to_thread(subprocess.Popen, ["taskset", "-c", "0", "sh", "-c", "while :; do :; done"])
        try:
            clock = Path(f"/proc/{spinner.pid}/schedstat")
            for _ in range(WINDOWS):
                ours, others = await beside(lambda: int(clock.read_text().split()[0]) / 1e9, theirs)
                if ours > others:
                    break
            assert ours > others
        finally:
            spinner.kill()
            spinner.wait()
