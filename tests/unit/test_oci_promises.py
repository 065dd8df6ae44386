"""Room for checkpoints: those that are written at once have to fit together, and there are never many."""

import asyncio
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from warren.contracts.engine import Checkpoint
from warren.engine.oci.box import Box
from warren.engine.oci.cgroup import Cgroups
from warren.engine.oci.engine import OciEngine
from warren.engine.oci.keeping import Keeping
from warren.engine.oci.machine import MIB
from warren.engine.oci.manifest import Manifest
from warren.engine.oci.promises import Promises
from warren.engine.oci.record import Record
from warren.engine.oci.sealed import Key
from warren.engine.oci.shelf import Shelf
from warren.engine.oci.slot import Slot
from warren.model import limits
from warren.model.errors import NoSpace, SandboxChanging, SandboxNotFound
from warren.model.sandbox import Resources
from warren.model.snapshot import SnapshotKind
from warren.settings import Settings

FILES = SnapshotKind.FILESYSTEM
FREE_MB = 1000
MANIFEST = Manifest(f"c{2:020d}", f"i{2:020d}", "runsc", FILES, "sha256:one", Resources(1, 256, 2048, 100))
DEADLINE_S = 10.0


def box(number: int, folder: Path) -> Box:
    record = Record(f"i{number:020d}", "runsc", number, "192.0.2.1", 1, 256, 2048, image="sha256:one")
    return Box(record, cast("Slot", None), folder)


def new_id(number: int) -> str:
    return f"c{number:020d}"


def test_what_does_not_fit_together_is_refused_and_what_is_written_counts_once() -> None:
    free, written = [100 * MIB], [0]
    promises = Promises("the disk", lambda: free[0], "buy one")
    with ExitStack() as held:
        held.enter_context(promises.hold("keep one", 60 * MIB, lambda: written[0]))
        with pytest.raises(NoSpace, match=r"^cannot keep two: that takes up to 50 MiB of the disk, and 40 .*buy"):
            held.enter_context(promises.hold("keep two", 50 * MIB, lambda: 0))
        held.enter_context(promises.hold("keep two", 40 * MIB, lambda: 0))
        free[0], written[0] = 40 * MIB, 60 * MIB
        with pytest.raises(NoSpace):
            held.enter_context(promises.hold("keep three", 1, lambda: 0))
        free[0] = 50 * MIB
        held.enter_context(promises.hold("keep three", 10 * MIB, lambda: 0))
    with promises.hold("keep four", 50 * MIB, lambda: 0):
        pass


class SlowRuntime:
    """Every sandbox has 600 MiB of files, and is saved when `may_end` is set."""

    name, keeps_memory = "runsc", False

    def __init__(self) -> None:
        self.halted: list[str] = []
        self.saving, self.may_end = threading.Event(), threading.Event()

    def disk_used(self, record: Record, folder: Path) -> int:
        del record, folder
        return 600 * MIB

    def halt(self, record: Record, folder: Path) -> None:
        del folder
        self.halted.append(record.id)

    def save(self, record: Record, folder: Path, target: Path, manifest: object) -> object:
        del record, folder, target
        self.saving.set()
        assert self.may_end.wait(DEADLINE_S)
        return manifest

    def wake(self, record: Record, folder: Path) -> None: ...


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    free = FREE_MB * MIB + limits.CHECKPOINT_SPARE_BYTES
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(free, 0, free))  # pyright: ignore


@pytest.mark.usefixtures("small_disk")
def test_a_checkpoint_leaves_the_room_that_others_are_about_to_take(tmp_path: Path) -> None:
    shelf, runtime = Shelf(tmp_path / "checkpoints", None), SlowRuntime()
    shelf.open()
    keeping = Keeping(shelf, Cgroups("none", tmp_path), cast("Any", {"runsc": runtime}))
    first, second = box(1, tmp_path), box(2, tmp_path)

    def keep(one: Box, number: int) -> Checkpoint:
        return keeping.write(one, new_id(number), FILES, hold=False, durable=False)

    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(keep, first, 1)
        assert runtime.saving.wait(DEADLINE_S)
        try:
            with pytest.raises(NoSpace, match="600 MiB"):
                keep(second, 2)
        finally:
            runtime.may_end.set()
        assert writing.result().id == new_id(1)
    assert runtime.halted == [first.id], "the other was not even stopped"
    assert keep(second, 2).id == new_id(2)


@pytest.mark.usefixtures("small_disk")
def test_sealed_files_have_room_for_the_time_that_they_lie_there_twice(tmp_path: Path) -> None:
    shelf, runtime = Shelf(tmp_path / "checkpoints", Key(b"k" * 32)), SlowRuntime()
    shelf.open()
    runtime.may_end.set()
    keeping = Keeping(shelf, Cgroups("none", tmp_path), cast("Any", {"runsc": runtime}))
    with pytest.raises(NoSpace, match="600 MiB of the state folder's disk, and 400 MiB are free"):
        keeping.write(box(1, tmp_path), new_id(1), FILES, hold=False, durable=False)
    assert (runtime.halted, list(shelf.folder.iterdir())) == ([], [])
    with shelf.draft(new_id(2), FILES, 0) as draft:
        (draft.target / "files").mkdir()
        (draft.target / "files" / "layer").write_bytes(b"x")
        manifest = shelf.publish(draft, MANIFEST)
    pieces = {name: replace(piece, on_disk=600 * MIB) for name, piece in manifest.pieces.items()}
    with (
        shelf.disk.hold("keep another", 500 * MIB, lambda: 0),
        pytest.raises(NoSpace, match=r"open the checkpoint.* 600 MiB"),
        shelf.part(replace(manifest, pieces=pieces), FILES),
    ):
        pass
    with shelf.part(manifest, FILES) as part:
        assert (part / "layer").read_bytes() == b"x"


class SlowKeeping:
    """Holds every checkpoint up until `may_end`, and remembers how many were at work at once."""

    def __init__(self) -> None:
        self.at_work, self.most = 0, 0
        self.changing, self.may_end = threading.Lock(), threading.Event()

    def write(self, box: Box, checkpoint_id: str, kind: SnapshotKind, *, hold: bool, durable: bool) -> Checkpoint:
        del hold, durable
        with self.changing:
            self.at_work += 1
            self.most = max(self.most, self.at_work)
        assert self.may_end.wait(DEADLINE_S)
        with self.changing:
            self.at_work -= 1
        return Checkpoint(checkpoint_id, box.id, "runsc", kind, 1)


@pytest.fixture
def boxes(tmp_path: Path) -> Iterator[list[Box]]:
    made = [box(number, tmp_path) for number in range(2)]
    for one in made:
        one.pidfd = os.pidfd_open(os.getpid())
    yield made
    for one in made:
        if one.pidfd is not None:
            os.close(one.pidfd)


@pytest.fixture
def keeping() -> SlowKeeping:
    return SlowKeeping()


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, boxes: list[Box], keeping: SlowKeeping) -> OciEngine:
    engine = OciEngine(Settings(state_dir=tmp_path / "state"))
    monkeypatch.setattr(engine, "_boxes", {one.id: one for one in boxes})
    monkeypatch.setattr(engine, "_keeping", keeping)
    return engine


@pytest.mark.anyio
async def test_a_copy_that_waits_behind_a_pause_is_refused(
    engine: OciEngine, boxes: list[Box], keeping: SlowKeeping
) -> None:
    sandbox = boxes[0].id
    pause = asyncio.create_task(engine.checkpoint(sandbox, new_id(1), FILES, hold=True))
    copy = asyncio.create_task(engine.checkpoint(sandbox, new_id(2), FILES, hold=False))
    keeping.may_end.set()
    await pause
    with pytest.raises(SandboxChanging):
        await copy
    assert keeping.most == 1
    with pytest.raises(SandboxNotFound):
        await engine.checkpoint("i" + "z" * 20, new_id(3), FILES, hold=False)
