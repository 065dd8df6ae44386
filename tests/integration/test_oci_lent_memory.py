"""The memory limit of real sandboxes around a snapshot, beside a process that takes memory. Needs root."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.inside import introduce, run
from tests.integration.test_oci_sleep import MEMORY, SIZE, Machine, checkpoint_id
from warren.engine.oci.bundle import MIB
from warren.engine.oci.cgroup import Cgroups
from warren.engine.oci.manifest import Manifest
from warren.engine.oci.runsc import whole_memory
from warren.engine.oci.shelf import Draft, Shelf
from warren.model.snapshot import SnapshotKind

pytestmark = [
    pytest.mark.root,
    pytest.mark.anyio,
    pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes need root"),
]
GREEDY = "import time\nheap = []\nwhile True:\n    heap.append(b'x' * (1 << 20))\n    time.sleep(0.001)\n"
MODEST = "import time\nheap = b'x' * (64 << 20)\nwhile True:\n    open('/root/file', 'wb').write(heap[:8 << 20])\n"
SLOW_DISK_S = 2.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    yield Machine(tmp_path / "state")


def limit(machine: Machine, sandbox_id: str) -> int:
    cgroups = Cgroups(f"warren_{machine.settings.bridge}")
    names = ("memory.high", "memory.max") if cgroups.is_v2 else ("memory.limit_in_bytes",)
    said = [cgroups.memory_file(sandbox_id, name).read_text().strip() for name in names]
    return min(int(value) for value in said if value != "max")


@pytest.mark.parametrize(
    ("runtime", "kind", "program", "usual"),
    [
        ("crun", SnapshotKind.FILESYSTEM, GREEDY, SIZE.memory_mb * MIB),
        ("runsc", MEMORY, MODEST, whole_memory(SIZE.memory_mb)),
    ],
    ids=["crun", "runsc"],
)
async def test_a_snapshot_leaves_the_limit_where_it_was(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, runtime: str, kind: SnapshotKind, program: str, usual: int
) -> None:
    publish, seen = Shelf.publish, list[int]()

    def slowly(shelf: Shelf, draft: Draft, manifest: Manifest, *, durable: bool = True) -> Manifest:
        """The sandbox goes on by now, and what was lent would be its own."""
        seen.append(limit(machine, manifest.sandbox_id))
        time.sleep(SLOW_DISK_S)
        seen.append(limit(machine, manifest.sandbox_id))
        return publish(shelf, draft, manifest, durable=durable)

    monkeypatch.setattr(Shelf, "publish", slowly)
    async with machine.engine(runtime=runtime) as engine:
        placement = await engine.create(machine.spec(runtime))
        await introduce(placement.address)
        assert limit(machine, placement.id) == usual
        run(placement.address, f"cat > /root/work.py <<'E'\n{program}\nE")
        run(placement.address, "setsid sh -c 'while :; do python3 /root/work.py; done' > /dev/null 2>&1 &")
        time.sleep(1)
        for _ in range(2):
            await engine.checkpoint(placement.id, checkpoint_id(), kind, hold=False)
        assert [*seen, limit(machine, placement.id)] == [usual] * 5
