"""What a new server does with what it finds: sandboxes that run become its own, everything else is cleared away."""

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import structlog

from warren.engine.oci import layer
from warren.engine.oci.box import Box
from warren.engine.oci.cgroup import Cgroups
from warren.engine.oci.freezer import Freezer
from warren.engine.oci.network import Network, release_netns
from warren.engine.oci.places import Places
from warren.engine.oci.process import ProcessId, boot_id, kill, wait_over
from warren.engine.oci.record import Record
from warren.engine.oci.runtime import Runtime
from warren.engine.oci.slot import SlotPlan
from warren.engine.oci.uids import UidRanges
from warren.engine.oci.volume_image import unmount
from warren.model import limits
from warren.model.errors import EngineFailed

log = structlog.get_logger(__name__)


def forget_other_boots(places: Places) -> None:
    """A run folder that outlived a reboot names processes and namespaces that are gone or are somebody else's."""
    marker = places.run / "boot"
    if places.run.exists() and not (marker.exists() and marker.read_text() == boot_id()):
        clear_run(places)
    places.make()
    marker.write_text(boot_id())


def clear_run(places: Places) -> None:
    """Remove the run folder with all that is mounted in it, and give its uids back."""
    with contextlib.suppress(FileNotFoundError):
        for folder in places.mounts.iterdir():
            unmount(folder)  # first of all: below it are files that must never be removed
    UidRanges(places.run.parent, places.run.name).release()
    for folder in (places.netns, places.runsc_shared, places.runsc_root):
        with contextlib.suppress(FileNotFoundError):
            for path in folder.iterdir():
                if path.is_file():
                    release_netns(path)
    shutil.rmtree(places.run, ignore_errors=True)


class Adoption:
    """Reads the run folder once, when an engine opens. Blocks: call it through `on_thread`."""

    def __init__(
        self, places: Places, plan: SlotPlan, network: Network, cgroups: Cgroups, runtimes: Mapping[str, Runtime]
    ) -> None:
        self._places = places
        self._plan = plan
        self._network = network
        self._cgroups = cgroups
        self._runtimes = runtimes

    def adopt(self) -> dict[str, Box]:
        """The sandboxes that still run, by id. Whatever else is found is removed first."""
        boxes: dict[str, Box] = {}
        for folder in sorted(self._places.sandboxes.iterdir()):
            box = self._live(folder)
            if box is None:
                self._clear_sandbox(folder.name, folder)
            else:
                boxes[box.id] = box
        for sandbox_id in self._cgroups.children() - boxes.keys():
            self._clear_sandbox(sandbox_id, self._places.sandboxes / sandbox_id)
        layer.clear(self._places.layers, keep=set(boxes))
        self._clear_slots({box.slot.index for box in boxes.values()})
        return boxes

    def _live(self, folder: Path) -> Box | None:
        record = Record.read(folder)
        if record is None or record.id != folder.name or record.runtime not in self._runtimes:
            return None
        if record.slot >= self._plan.count or record.process is None:
            return None
        slot = self._plan.slot(record.slot)
        if str(slot.address) != record.address or ProcessId.of(record.pid) != record.process:
            return None
        return Box(record, slot, folder)

    def _clear_sandbox(self, sandbox_id: str, folder: Path) -> None:
        log.warning("leftover removed", sandbox=sandbox_id)
        release_frozen(self._cgroups, sandbox_id)
        for runtime in self._runtimes.values():
            try:
                runtime.delete(sandbox_id, folder)
            except EngineFailed as error:
                log.warning("runtime could not remove a leftover", sandbox=sandbox_id, error=error.message)
        kill_group(self._cgroups, sandbox_id)
        self._cgroups.remove(sandbox_id)
        shutil.rmtree(folder, ignore_errors=True)

    def _clear_slots(self, in_use: set[int]) -> None:
        names = {path.name for path in self._places.netns.iterdir()}
        names |= {port.rpartition(".")[2] for port in self._network.ports()}
        indexes = {int(name) for name in names if name.isdecimal()} - in_use
        self._network.remove([self._plan.slot(index) for index in sorted(indexes) if index < self._plan.count])


def release_frozen(cgroups: Cgroups, sandbox_id: str) -> None:
    """Kill what is frozen before a runtime comes to delete it: on v1 it would not die, and thawed it would run on."""
    if Freezer(cgroups).is_frozen(sandbox_id):
        kill_group(cgroups, sandbox_id)


def kill_group(cgroups: Cgroups, sandbox_id: str) -> None:
    """Last resort: kill by cgroup whatever a runtime did not."""
    # A thread of this server stands in the group until it has quite ended (confine.py), and then the group lists us.
    processes = [process for pid in cgroups.pids(sandbox_id) - {os.getpid()} if (process := ProcessId.of(pid))]
    pidfds = [pidfd for process in processes if (pidfd := process.open()) is not None]
    try:
        for pidfd in pidfds:
            kill(pidfd)
        freezer = Freezer(cgroups)
        if freezer.is_frozen(sandbox_id):
            freezer.thaw(sandbox_id)  # to their end: on v1 what is frozen does not even die
        for pidfd in pidfds:
            wait_over(pidfd, limits.KILL_DEADLINE_S)
    finally:
        for pidfd in pidfds:
            os.close(pidfd)
