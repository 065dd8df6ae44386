"""The engine of this machine (`warren.contracts.engine.Engine`)."""

import asyncio
import contextlib
import shutil
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from warren.contracts.engine import Checkpoint, Placement, SandboxSpec, Shortage
from warren.durable import DISK_FULL
from warren.engine.oci import firewall, switches
from warren.engine.oci.adoption import Adoption, clear_run, forget_other_boots, kill_group, release_frozen
from warren.engine.oci.baking import Baking
from warren.engine.oci.box import Box, new_record
from warren.engine.oci.bundle import MIB, cpu_shares
from warren.engine.oci.cgroup import Cgroups
from warren.engine.oci.crun import Crun
from warren.engine.oci.guard import RuleGuard
from warren.engine.oci.keeping import Keeping
from warren.engine.oci.machine import machine_of
from warren.engine.oci.network import Network
from warren.engine.oci.orphans import end_orphans
from warren.engine.oci.places import RUN_ROOT, Hold, Places, forget_guests, install_guest
from warren.engine.oci.pool import SlotMaker, SlotPool
from warren.engine.oci.process import ProcessId
from warren.engine.oci.runsc import Runsc
from warren.engine.oci.runtime import Runtime
from warren.engine.oci.sealed import Key
from warren.engine.oci.shelf import Shelf
from warren.engine.oci.slot import Slot, SlotPlan
from warren.engine.oci.threads import on_thread, to_the_end
from warren.engine.oci.volumes import OciVolumes
from warren.model.errors import (
    AlreadyExists,
    BadRequest,
    EngineFailed,
    NoCapacity,
    NoSpace,
    SandboxChanging,
    SandboxNotFound,
)
from warren.model.observation import Usage
from warren.model.policy import EgressPolicy
from warren.model.room import Room
from warren.model.sandbox import SANDBOX_ID
from warren.model.snapshot import SnapshotKind
from warren.model.template import TemplateImage
from warren.settings import Settings
from warren.telemetry.steps import step

RUNTIME_NAMES = ("runsc", "crun")

log = structlog.get_logger(__name__)


class OciEngine:
    """Runs sandboxes under runsc or crun, each on a network slot of one bridge."""

    def __init__(self, settings: Settings) -> None:
        if settings.runtime not in RUNTIME_NAMES:
            raise BadRequest(f"cannot use runtime {settings.runtime!r}: choose one of {', '.join(RUNTIME_NAMES)}")
        self._settings = settings
        self._places = Places.of(settings)
        self._plan = SlotPlan(settings.network, settings.bridge, self._places.netns, settings.max_slots)
        self._network = Network(self._plan)
        self._cgroups = Cgroups(f"warren_{settings.bridge}")
        maker = SlotMaker(self._plan, self._network, self._prepare_slot)
        self._pool = SlotPool(self._plan, maker, settings.pool_slots)
        self._guard = RuleGuard(settings.bridge, self._rules)
        self._boxes: dict[str, Box] = {}
        self._runtimes: dict[str, Runtime] = {}
        key = Key.load(Path(settings.checkpoint_key_file)) if settings.checkpoint_key_file else None
        self._shelf = Shelf(self._places.checkpoints, key)
        self._keeping = Keeping(self._shelf, self._cgroups, self._runtimes)
        self._baking = Baking(self._places.bakes, self._places.blanks)
        self.volumes = OciVolumes(self._places, settings.disk_overcommit)
        self._hold: Hold | None = None
        self.machine_restarted = False

    @property
    def runtimes(self) -> tuple[str, ...]:
        return (self._settings.runtime, *(name for name in RUNTIME_NAMES if name != self._settings.runtime))

    async def open(self) -> None:
        if self._hold is not None:
            return
        hold = self._places.lock()
        try:
            await on_thread(self._prepare_machine)
            for box in self._boxes.values():
                self._attend(box)
            self._pool.open(taken=[box.slot.index for box in self._boxes.values()])
            self._guard.open()
            self.volumes.open(volume for box in self._boxes.values() for volume in box.record.volumes)
        except BaseException:
            hold.release()
            raise
        self._hold = hold
        log.info("engine open", bridge=self._plan.bridge, adopted=len(self._boxes), slots=self._plan.count)

    def _attend(self, box: Box) -> None:
        """Watch over a sandbox that an earlier server has started."""
        process, runtime = box.record.process, self._runtimes[box.record.runtime]
        if process is None or not box.watch(process):
            return
        with contextlib.suppress(EngineFailed):  # it is ending just now
            box.guard(runtime.fence(box.record))
        if runtime.guest_frees_memory:
            box.short.set()  # the earlier server may have ended while memory was lent

    def _prepare_machine(self) -> None:
        self.machine_restarted = not self._places.is_of_this_boot()
        end_orphans(self._places)
        forget_other_boots(self._places)
        guest_dir = install_guest(self._settings.guestd, self._places.guests)
        runsc = Runsc(self._settings.runsc, self._places, guest_dir, self._cgroups)
        crun = Crun(self._settings.crun_path, self._places, guest_dir, self._cgroups)
        self._runtimes.update({runsc.name: runsc, crun.name: crun})
        self._shelf.open()
        self._baking.open()
        adoption = Adoption(self._places, self._plan, self._network, self._cgroups, self._runtimes)
        self._boxes = adoption.adopt()
        if not self._boxes and (saved := self._keeping.guests()) is not None:
            forget_guests(self._places.guests, {guest_dir.name, *saved})
        self._cgroups.open_parent()
        firewall.apply("load the network rules", self._rules())
        self._network.open(in_use=bool(self._boxes))
        switches.set_all(RUN_ROOT)

    def _rules(self) -> str:
        bridge, boxes = self._plan.bridge, self._boxes.values()
        parts = [firewall.ruleset(bridge, self._plan.network)]
        parts.append(firewall.slot_elements("add", bridge, [*self._pool.idle, *(box.slot for box in boxes)]))
        parts.extend(firewall.egress_change(bridge, box.slot.address, EgressPolicy(), box.egress) for box in boxes)
        return "".join(parts)

    def _prepare_slot(self, slot: Slot) -> None:
        for runtime in self._runtimes.values():
            runtime.prepare(slot)

    async def close(self) -> None:
        if self._hold is None:
            return
        try:
            await self._guard.close()
            await self._pool.close()
            await self.volumes.close()
            for box in self._boxes.values():
                box.unwatch()
            for runtime in self._runtimes.values():
                runtime.close()
            if not self._boxes:
                await on_thread(self._leave_machine)
        finally:
            self._boxes = {}
            self._hold.release()
            self._hold = None

    def _leave_machine(self) -> None:
        self._network.close()
        firewall.apply("remove the network rules", firewall.removal(self._plan.bridge))
        self._cgroups.remove_parent()
        clear_run(self._places)
        switches.restore(RUN_ROOT)

    async def create(self, spec: SandboxSpec) -> Placement:
        runtime = self._runtimes.get(spec.runtime)
        if runtime is None:
            raise BadRequest(f"cannot use runtime {spec.runtime!r}: choose one of {', '.join(self.runtimes)}")
        if spec.id in self._boxes:
            raise AlreadyExists(f"cannot create sandbox {spec.id}: that id is in use")
        if not SANDBOX_ID.fullmatch(spec.id):
            raise BadRequest(f"cannot use {spec.id!r} as a sandbox id: it names files, cgroups and processes")
        refusal = (await self.room()).refusal(spec.resources)
        if refusal is not None:
            raise NoCapacity(f"cannot place another sandbox on this machine: {refusal}; kill some, or try again later")
        box = await self._taken(spec)
        async with box.lock:
            try:
                process = await on_thread(self._start, runtime, spec, box)
                box.guard(runtime.fence(box.record))
                if not box.watch(process):
                    raise EngineFailed(f"cannot run sandbox {spec.id}: it ended right after its start")
            except BaseException:
                await to_the_end(self._give_up(box))
                raise
        return box.placement

    async def _taken(self, spec: SandboxSpec) -> Box:
        """A slot and the volumes of a new sandbox, held until `_remove`."""
        volumes = tuple(mount.volume_id for mount in spec.volumes)
        await self.volumes.take(volumes)
        try:
            with step("slot"):
                slot = await self._pool.take()
            if spec.id in self._boxes:  # by a create that ran beside this one
                self._pool.give_back(slot)
                raise AlreadyExists(f"cannot create sandbox {spec.id}: that id is in use")
        except BaseException:
            self.volumes.give_back(volumes)
            raise
        box = Box(new_record(spec, slot, self._settings.dns_servers), slot, self._places.sandboxes / spec.id)
        self._boxes[spec.id] = box
        return box

    async def room(self) -> Room:
        running = [box.record.resources for box in self._boxes.values()]
        settings = self._settings
        machine = machine_of(settings.state_dir)
        return Room.of(machine, running, settings.memory_overcommit, settings.disk_overcommit)

    async def _give_up(self, box: Box) -> None:
        try:
            await self._remove(box)
        except EngineFailed as error:  # what made the create fail is the error to report; `destroy` may try again
            log.error("half-made sandbox not removed", sandbox=box.id, error=error.message)

    def _start(self, runtime: Runtime, spec: SandboxSpec, box: Box) -> ProcessId:
        try:
            return self._run(runtime, spec, box)
        except OSError as error:
            if error.errno in DISK_FULL:
                raise NoSpace(f"cannot start sandbox {spec.id}: the disk is full; free some space") from error
            raise EngineFailed(f"cannot start sandbox {spec.id}: {error}") from error

    def _run(self, runtime: Runtime, spec: SandboxSpec, box: Box) -> ProcessId:
        self._places.note_boot()
        box.folder.mkdir(mode=0o700)
        box.record.write(box.folder)
        change = firewall.egress_change(self._plan.bridge, box.slot.address, EgressPolicy(), box.egress)
        with step("rules"):
            firewall.apply(f"set the egress rules of sandbox {spec.id}", change)
        with self._keeping.opened(spec) as saved:
            pid = runtime.start(spec, box.slot, box.folder, saved)
        process = ProcessId.of(pid)
        if process is None:
            raise EngineFailed(f"cannot run sandbox {spec.id}: it ended right after its start")
        box.record = box.record.running_as(process)
        box.record.write(box.folder)
        return process

    async def destroy(self, sandbox_id: str) -> None:
        box = self._boxes.get(sandbox_id)
        if box is None:
            return
        async with box.lock:
            if self._boxes.get(sandbox_id) is box:
                await to_the_end(self._remove(box))

    async def _remove(self, box: Box) -> None:
        await on_thread(self._delete, box)
        box.unwatch()
        box.over()
        del self._boxes[box.id]
        self.volumes.give_back(box.record.volumes)
        self._pool.give_back(box.slot)

    def _delete(self, box: Box) -> None:
        runtime = self._runtimes[box.record.runtime]
        box.kill()
        release_frozen(self._cgroups, box.id)
        try:
            runtime.delete(box.id, box.folder)
            self._cgroups.remove(box.id)
        except EngineFailed as error:
            log.warning("sandbox does not go; killing its cgroup", sandbox=box.id, error=error.message)
            kill_group(self._cgroups, box.id)
            runtime.delete(box.id, box.folder)
            self._cgroups.remove(box.id)
        change = firewall.egress_change(self._plan.bridge, box.slot.address, box.egress, EgressPolicy())
        firewall.apply(f"drop the egress rules of sandbox {box.id}", change)
        shutil.rmtree(box.folder, ignore_errors=True)

    async def list(self) -> list[Placement]:
        return [box.placement for box in self._boxes.values() if box.is_alive]

    async def death(self, sandbox_id: str) -> None:
        box = self._boxes.get(sandbox_id)
        if box is not None:
            await box.gone.wait()

    async def shortage(self, sandbox_id: str) -> Shortage:
        box = self._boxes.get(sandbox_id)
        if box is None:
            return Shortage.GONE
        await box.short.wait()
        if box.gone.is_set():
            return Shortage.GONE
        box.short.clear()
        return Shortage.GUEST if self._runtimes[box.record.runtime].guest_frees_memory else Shortage.KERNEL

    async def memory_excess(self, sandbox_id: str) -> int:
        box = self._boxes.get(sandbox_id)
        if box is None or box.fence is None or not box.is_alive:
            return 0
        return await on_thread(box.fence.put_back)

    async def usage(self, sandbox_id: str) -> Usage:
        box = self._boxes.get(sandbox_id)
        if box is None or not box.is_alive:
            raise SandboxNotFound.of(sandbox_id)
        return await on_thread(self._measure, box)

    def _measure(self, box: Box) -> Usage:
        runtime = self._runtimes[box.record.runtime]
        runtime.refresh(box.record, box.folder)
        group = self._cgroups.usage(box.id)
        total = box.record.memory_mb * MIB
        return Usage(
            cpu_seconds=group.cpu_seconds,
            cpu_count=box.record.cpu_count,
            memory_used=min(group.memory - group.cache, total),
            memory_cache=min(group.cache, total),
            memory_total=total,
            disk_used=runtime.disk_used(box.record, box.folder),
            disk_total=box.record.disk_mb * MIB,
        )

    async def bring_forward(self, sandbox_id: str) -> None:
        async with self._held(sandbox_id) as box:
            await on_thread(self._cgroups.set_shares, box.id, cpu_shares(box.record.cpu_count))

    async def set_egress(self, sandbox_id: str, egress: EgressPolicy) -> None:
        async with self._held(sandbox_id) as box:
            if egress != box.egress:
                await on_thread(self._replace_egress, box, egress)

    @contextlib.asynccontextmanager
    async def _held(self, sandbox_id: str) -> AsyncGenerator[Box]:
        """A sandbox that nobody else changes or removes meanwhile. Raises SandboxNotFound."""
        box = self._boxes.get(sandbox_id)
        if box is None:
            raise SandboxNotFound.of(sandbox_id)
        async with box.lock:
            if self._boxes.get(sandbox_id) is not box or not box.is_alive:
                raise SandboxNotFound.of(sandbox_id)
            yield box

    def _replace_egress(self, box: Box, egress: EgressPolicy) -> None:
        change = firewall.egress_change(self._plan.bridge, box.slot.address, box.egress, egress)
        firewall.apply(f"set the egress rules of sandbox {box.id}", change)
        allow, deny = tuple(map(str, egress.allow)), tuple(map(str, egress.deny))
        box.record = replace(box.record, allow=allow, deny=deny)
        box.record.write(box.folder)

    async def denials(self) -> Mapping[str, int]:
        boxes = list(self._boxes.values())
        counts = await on_thread(firewall.drops, self._plan.bridge, [box.slot for box in boxes])
        return {box.id: count for box, count in zip(boxes, counts, strict=True) if count}

    def keeps_memory(self, runtime: str) -> bool:
        found = self._runtimes.get(runtime)
        return found is not None and found.keeps_memory

    async def checkpoint(
        self, sandbox_id: str, checkpoint_id: str, kind: SnapshotKind, *, hold: bool, durable: bool = True
    ) -> Checkpoint:
        made: deque[Checkpoint] = deque()
        short = False
        async with self._held(sandbox_id) as box:
            if box.is_still:
                raise SandboxChanging(f"cannot copy sandbox {sandbox_id}: it stands still")

            def keep() -> None:
                nonlocal short
                write = self._keeping.write
                try:
                    made.append(write(box, checkpoint_id, kind, hold=hold, durable=durable))
                finally:
                    stands = hold and len(made) > 0
                    short = not stands and box.has_to_free()

            try:
                await on_thread(keep)
            except asyncio.CancelledError:
                if made:  # it was written to its end, and nobody will ask for it
                    await to_the_end(on_thread(self._undo, box, checkpoint_id))
                    short = self._runtimes[box.record.runtime].guest_frees_memory
                raise
            finally:
                if short:
                    box.short.set()
            box.is_still = hold
        return made[0]

    def _undo(self, box: Box, checkpoint_id: str) -> None:
        self._keeping.forget(checkpoint_id)
        self._wake(box)

    async def checkpoints(self) -> Sequence[Checkpoint]:
        return await on_thread(self._keeping.checkpoints)

    async def forget(self, checkpoint_id: str) -> None:
        await on_thread(self._keeping.forget, checkpoint_id)

    async def bake(
        self, image: TemplateImage, tree: AsyncIterator[bytes], target: Path, *, epoch: int, disk_mb: int
    ) -> str:
        return await self._baking.bake(image, tree, target, epoch=epoch, disk_mb=disk_mb)

    async def drop_image(self, image: TemplateImage) -> None:
        for runtime in self._runtimes.values():
            await on_thread(runtime.drop_image, image.path)

    async def freeze(self, sandbox_id: str) -> None:
        async with self._held(sandbox_id) as box:
            box.is_still = True  # also after an error half-way: only `thaw` says that it goes on
            await on_thread(self._runtimes[box.record.runtime].halt, box.record, box.folder)

    async def thaw(self, sandbox_id: str) -> None:
        async with self._held(sandbox_id) as box:
            await on_thread(self._wake, box)
            box.is_still = False
            if self._runtimes[box.record.runtime].guest_frees_memory:
                box.short.set()  # it may have been frozen while memory was lent

    def _wake(self, box: Box) -> None:
        self._runtimes[box.record.runtime].wake(box.record, box.folder)

    async def reclaim(self, sandbox_id: str) -> int:
        async with self._held(sandbox_id) as box:
            return await on_thread(self._runtimes[box.record.runtime].reclaim, box.record)
