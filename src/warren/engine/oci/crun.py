"""crun's command line, and the root file system that it is given."""

import contextlib
import json
import os
import resource
import uuid
from pathlib import Path

from warren.contracts.engine import SandboxSpec
from warren.engine.oci import layer
from warren.engine.oci.blank import Blanks
from warren.engine.oci.bundle import MIB, Json, Paths, crun_bundle
from warren.engine.oci.cgroup import Cgroups, CgroupUsage
from warren.engine.oci.command import run
from warren.engine.oci.confine import confine_this_thread
from warren.engine.oci.fence import Fence, fence
from warren.engine.oci.freezer import Freezer
from warren.engine.oci.images import Images
from warren.engine.oci.launch import launch
from warren.engine.oci.manifest import PARTS, Manifest, Needs
from warren.engine.oci.meminfo import meminfo
from warren.engine.oci.places import Places
from warren.engine.oci.record import Record
from warren.engine.oci.rootfs import Layers, enter_private_mounts, mount_root, show, show_idmapped
from warren.engine.oci.runtime import Saved
from warren.engine.oci.slot import Slot
from warren.engine.oci.threads import in_passing_thread
from warren.engine.oci.uids import UidRanges
from warren.engine.oci.userns import UserNamespaces
from warren.model import limits
from warren.model.errors import EngineFailed
from warren.telemetry.steps import step

START_DEADLINE_S = 20.0
"""Seconds for `crun run`; normally 0.02."""


class Crun:
    """Starts and removes sandboxes on the host's own kernel."""

    name = "crun"
    guest_frees_memory = False

    def __init__(self, binary: str, places: Places, guest_dir: Path, cgroups: Cgroups) -> None:
        self._binary = binary
        self._places = places
        self._guest_dir = guest_dir
        self._cgroups = cgroups
        self._blanks = Blanks(places.blanks)
        self._images = Images()
        self._uids = UidRanges(places.run.parent, places.run.name)
        self._namespaces = UserNamespaces(self._uids)
        self._freezer = Freezer(cgroups)
        self._cgroup_manager = "cgroupfs" if cgroups.is_v2 else "disabled"
        # No capability to go above the hard limit that this process itself was given.
        self._open_files = min(limits.MAX_OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])

    def start(self, spec: SandboxSpec, slot: Slot, folder: Path, saved: Saved | None) -> int:
        """Start a sandbox; the pid of its PID 1."""
        # crun looks the root up as the sandbox's root user, who is nobody on the host: it may pass, not look around.
        folder.chmod(0o711)
        file = layer.path_of(self._places.layers, spec.id)
        with step("layer"):
            if saved is None:
                self._blanks.copy(spec.resources.disk_mb, file)
            else:
                layer.copy(saved.part / layer.SAVED, file)
            image, namespace = self._images.device(spec.image.path), self._namespaces.of(slot)
        layers = Layers(image, file, namespace, self._uids.base(slot))
        paths = Paths(
            root=folder / "root",
            guest_dir=folder / "guest",
            layers=self._places.layers,
            cgroup=self._cgroups.path(spec.id),
            boot_id=folder / "boot_id",
            meminfo=folder / "meminfo",
            user_namespace=Path(f"/proc/{os.getpid()}/fd/{namespace}"),
            counters=self._cgroups.counters(spec.id),
            volumes=[folder / f"volume-{number}" for number in range(len(spec.volumes))],
        )
        (folder / "boot_id").write_text(f"{uuid.uuid4()}\n")
        (folder / "meminfo").write_bytes(meminfo(spec.resources.memory_mb * MIB, CgroupUsage(0.0, 0, 0)))
        (folder / "config.json").touch(0o600)
        (folder / "config.json").write_text(json.dumps(self._bundle(spec, slot, paths)))
        in_passing_thread(lambda: self._run(spec, layers, folder))
        return int((folder / "pid").read_text())

    def _bundle(self, spec: SandboxSpec, slot: Slot, paths: Paths) -> Json:
        return crun_bundle(
            spec,
            slot,
            paths,
            uid_base=self._uids.base(slot),
            open_files=self._open_files,
            own_cgroup=not self._cgroups.is_v2,
        )

    def _run(self, spec: SandboxSpec, layers: Layers, folder: Path) -> None:
        try:
            with step("mounts"):
                enter_private_mounts(hide_hybrid_cgroup=self._cgroups.is_hybrid)
                mount_root(layers, folder)
                show(self._guest_dir, folder / "guest")
                for number, volume in enumerate(spec.volumes):
                    source, target = self._places.data_of(volume.volume_id), folder / f"volume-{number}"
                    show_idmapped(source, target, layers.user_namespace, read_only=volume.read_only)
        except OSError as error:
            raise EngineFailed(f"cannot mount the root of sandbox {spec.id}: {error.strerror}") from error
        if not self._cgroups.is_v2:
            group, back = self._cgroups.path(spec.id), spec.in_background
            confine_this_thread(self._cgroups.root, group, spec.resources, in_background=back)
        argv = [*self._command(), "run", "--detach", f"--bundle={folder}", f"--pid-file={folder / 'pid'}", spec.id]
        entry = self._cgroups.background if spec.in_background and self._cgroups.is_v2 else None
        launch(f"start sandbox {spec.id}", argv, "--log=file:", START_DEADLINE_S, entry)

    def delete(self, sandbox_id: str, folder: Path) -> None:
        """Kill and forget a sandbox. Idempotent: `--force` makes an unknown one a success."""
        del folder
        layer.path_of(self._places.layers, sandbox_id).unlink(missing_ok=True)
        argv = [*self._command(), "delete", "--force", sandbox_id]
        in_passing_thread(lambda: self._delete(sandbox_id, argv))

    def _delete(self, sandbox_id: str, argv: list[str]) -> None:
        if self._cgroups.is_hybrid:
            enter_private_mounts(hide_hybrid_cgroup=True)
        run(f"remove sandbox {sandbox_id}", argv, limits.KILL_DEADLINE_S)

    def prepare(self, slot: Slot) -> None:
        """What a start on this slot will need and takes a while to make."""
        self._namespaces.of(slot)

    def drop_image(self, path: str) -> None:
        self._images.drop(path)

    def close(self) -> None:
        self._namespaces.close()
        self._images.close()

    def disk_used(self, record: Record, folder: Path) -> int:
        """Of the root as its PID 1 has it, which is the layer's file system; nothing but a count is read."""
        del folder
        try:
            found = os.statvfs(f"/proc/{record.pid}/root")
        except OSError:
            return 0
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def fence(self, record: Record) -> Fence:
        """The kernel ends a process by itself: the guest has seen to it that it is not the guest."""
        return fence(self._cgroups, record.id, record.memory_mb * MIB, guest_acts=self.guest_frees_memory)

    def refresh(self, record: Record, folder: Path) -> None:
        """Write what /proc/meminfo shows inside, in place: the sandbox has this very file mounted."""
        page = meminfo(record.memory_mb * MIB, self._cgroups.usage(record.id))
        with contextlib.suppress(FileNotFoundError), open(folder / "meminfo", "r+b", buffering=0) as file:
            file.write(page)

    def reclaim(self, record: Record) -> int:
        return self._cgroups.reclaim(record.id)

    @property
    def keeps_memory(self) -> bool:
        return False

    @property
    def needs(self) -> Needs:
        return Needs()

    def halt(self, record: Record, folder: Path) -> None:
        del folder
        self._freezer.freeze(record.id)

    def save(self, record: Record, folder: Path, target: Path, manifest: Manifest) -> Manifest:
        """The layer's file, once all that the frozen sandbox wrote is in it."""
        del folder
        file = layer.path_of(self._places.layers, record.id)
        layer.flush(file)
        part = target / PARTS[manifest.kind]
        part.mkdir(mode=0o700)
        layer.copy(file, part / layer.SAVED)
        return manifest

    def wake(self, record: Record, folder: Path) -> None:
        del folder
        if self._freezer.is_frozen(record.id):
            self._freezer.thaw(record.id)

    def _command(self) -> list[str]:
        return [self._binary, f"--root={self._places.crun_root}", f"--cgroup-manager={self._cgroup_manager}"]
