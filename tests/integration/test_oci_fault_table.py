"""Calls of a runtime x ways to go wrong x runtimes: the engine says so or mends it, and nothing is left."""

import asyncio
import os
import secrets
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests import addresses, leaks
from warren.contracts.engine import Restore, SandboxSpec
from warren.engine.oci.engine import OciEngine
from warren.model.errors import WarrenError
from warren.model.sandbox import Resources
from warren.model.snapshot import SnapshotKind
from warren.model.template import TemplateImage
from warren.settings import Settings, load

pytestmark = [
    pytest.mark.root,
    pytest.mark.anyio,
    pytest.mark.threat("E2"),
    pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes need root"),
]
SMALL = Resources(cpu_count=1, memory_mb=256, disk_mb=64, pids=100)
ALL_FAULTS = ("fail", "die", "hang", "fail-after", "die-after", "hang-after", "die-midway", "late")
FAULTS = ALL_FAULTS if os.environ.get("WARREN_ALL_FAULTS") else ("fail-after", "hang-after", "die-midway")
"""`make chaos` tries all of them."""
HANGS = frozenset({"hang", "hang-after"})
SHORT_S = 1.0
"""In place of the deadline that a hanging call runs into."""
DEADLINES = {
    "run": "warren.engine.oci.{runtime}.START_DEADLINE_S",
    "delete": "warren.model.limits.KILL_DEADLINE_S",
    "checkpoint": "warren.model.limits.CHECKPOINT_DEADLINE_S",
    "restore": "warren.model.limits.CHECKPOINT_DEADLINE_S",
}
ALWAYS = 99
DIES_S = 30
CHECKPOINT = "c" + "k" * 20


@dataclass
class Bench:
    """An engine whose runtime does as it is told, and the marks of what it may leave."""

    settings: Settings
    image: TemplateImage
    engine: OciEngine
    wrapper: Path
    real: str
    patched: pytest.MonkeyPatch

    def misbehave(self, call: str, fault: str, times: int) -> None:
        """Only the deadline of a call that will hang is short: the others take what they take on a busy machine."""
        self.patched.undo()
        if fault in HANGS:
            self.patched.setattr(DEADLINES[call].format(runtime=self.settings.runtime), SHORT_S)
        self.wrapper.with_name(f"{self.wrapper.name}.used").unlink(missing_ok=True)
        self.wrapper.with_name(f"{self.wrapper.name}.faults").write_text(f"{self.real} {call} {fault} {times}\n")

    def behave(self) -> None:
        self.misbehave("nothing", "fail", 0)

    async def create(self, restore: Restore | None = None) -> str:
        sandbox_id = "i" + secrets.token_hex(10)
        spec = SandboxSpec(sandbox_id, self.settings.runtime, self.image, "box", SMALL, restore=restore)
        await self.engine.create(spec)
        return sandbox_id

    async def left(self) -> list[str]:
        """What is there of sandboxes while none should be."""
        now = leaks.snapshot(self.settings.bridge, self.settings.state_dir)
        groups = [group for group in now["cgroups"] if Path(group).name.startswith("i")]
        boxes = [path for path in now["run"] if "/sandboxes/" in path]
        return [*(placed.id for placed in await self.engine.list()), *now["processes"], *now["layers"], *groups, *boxes]


Check = Callable[[Bench, str], Awaitable[None]]


async def start(bench: Bench, fault: str) -> None:
    bench.misbehave("run", fault, 1)
    if fault == "late":
        await bench.engine.destroy(await bench.create())
    else:
        with pytest.raises(WarrenError):
            await bench.create()


async def delete_once(bench: Bench, fault: str) -> None:
    sandbox_id = await bench.create()
    bench.misbehave("delete", fault, 1)
    await bench.engine.destroy(sandbox_id)


async def delete_always(bench: Bench, fault: str) -> None:
    """Until it works again: the sandbox's processes are gone all the same, and a later destroy finishes it."""
    sandbox_id = await bench.create()
    bench.misbehave("delete", fault, ALWAYS)
    with suppress(WarrenError):
        await bench.engine.destroy(sandbox_id)
    async with asyncio.timeout(DIES_S):
        while await bench.engine.list():
            await asyncio.sleep(0.01)
    bench.behave()
    await bench.engine.destroy(sandbox_id)


async def checkpoint(bench: Bench, fault: str) -> None:
    sandbox_id = await bench.create()
    bench.misbehave("checkpoint", fault, 1)
    with suppress(WarrenError):
        await bench.engine.checkpoint(sandbox_id, CHECKPOINT, SnapshotKind.MEMORY, hold=False)
        assert fault in {"late", "die-midway"}, "it has no right to succeed"
    bench.behave()
    for kept in await bench.engine.checkpoints():
        await bench.engine.destroy(await bench.create(Restore(kept.id, SnapshotKind.MEMORY)))
        await bench.engine.forget(kept.id)
    assert [placed.id for placed in await bench.engine.list()] == [sandbox_id], "it lives on"
    await bench.engine.destroy(sandbox_id)


async def restore(bench: Bench, fault: str) -> None:
    sandbox_id = await bench.create()
    await bench.engine.checkpoint(sandbox_id, CHECKPOINT, SnapshotKind.MEMORY, hold=True)
    await bench.engine.destroy(sandbox_id)
    bench.misbehave("restore", fault, 1)
    if fault == "late":
        await bench.engine.destroy(await bench.create(Restore(CHECKPOINT, SnapshotKind.MEMORY)))
    else:
        with pytest.raises(WarrenError):
            await bench.create(Restore(CHECKPOINT, SnapshotKind.MEMORY))
    bench.behave()
    await bench.engine.destroy(await bench.create(Restore(CHECKPOINT, SnapshotKind.MEMORY)))
    await bench.engine.forget(CHECKPOINT)


TABLE: list[tuple[str, Check]] = [
    ("crun", start),
    ("crun", delete_once),
    ("crun", delete_always),
    ("runsc", start),
    ("runsc", delete_once),
    ("runsc", delete_always),
    ("runsc", checkpoint),
    ("runsc", restore),
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def bench_of(runtime: str, folder: Path, patched: pytest.MonkeyPatch) -> Bench:
    base = load({name: value for name, value in os.environ.items() if name.startswith("WARREN_")})
    built, tag = Path(__file__).parents[2] / "guestd" / "bin" / "guestd", secrets.token_hex(2)
    found = sorted(base.cache_dir.glob("templates/base-*/rootfs.erofs"))
    if not found:
        pytest.skip("no base template in the cache; run `make setup`")
    real = base.runsc if runtime == "runsc" else shutil.which(base.crun_path)
    wrapper = folder / runtime
    shutil.copy(Path(__file__).with_name("faulty-runtime"), wrapper)
    settings = Settings(
        state_dir=folder / "state",
        cache_dir=base.cache_dir,
        guestd_path=base.guestd_path or (str(built) if built.exists() else ""),
        bridge=f"wf{tag}",
        network=addresses.block(28),
        pool_slots=1,
        max_slots=4,
        runtime=runtime,
    )
    settings = replace(settings, **{f"{runtime}_path": str(wrapper)})  # type: ignore[arg-type]
    image = TemplateImage("sha256:unchecked", str(found[-1]))
    bench = Bench(settings, image, OciEngine(settings), wrapper, str(real), patched)
    bench.behave()
    return bench


@pytest.mark.parametrize(("runtime", "check"), TABLE, ids=[f"{runtime} {check.__name__}" for runtime, check in TABLE])
async def test_whatever_a_runtime_does_nothing_is_left(
    runtime: str, check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bench_of(runtime, tmp_path, monkeypatch)
    before = leaks.snapshot(bench.settings.bridge, bench.settings.state_dir)
    await bench.engine.open()
    try:
        for fault in FAULTS:
            await check(bench, fault)
            bench.behave()
            assert await bench.left() == [], f"left after {fault}"
    finally:
        await bench.engine.close()
    assert leaks.difference(before, leaks.snapshot(bench.settings.bridge, bench.settings.state_dir)) == {}
