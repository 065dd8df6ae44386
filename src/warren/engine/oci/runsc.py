"""gVisor's command line."""

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from warren.contracts.engine import SandboxSpec
from warren.engine.oci.bundle import MIB, Json, Paths, guest_of, rehoused, runsc_bundle
from warren.engine.oci.cgroup import Cgroups
from warren.engine.oci.command import run
from warren.engine.oci.fence import SENTRY_BYTES, Fence, fence
from warren.engine.oci.launch import launch
from warren.engine.oci.manifest import PARTS, Manifest, Needs
from warren.engine.oci.needs import needs_of
from warren.engine.oci.places import Places
from warren.engine.oci.record import Record
from warren.engine.oci.runsc_saver import RunscSaver
from warren.engine.oci.runtime import Saved
from warren.engine.oci.slot import Slot
from warren.model import limits
from warren.model.errors import CheckpointUnusable
from warren.model.snapshot import SnapshotKind

BUNDLE = "config.json"
"""The OCI specification in a sandbox's folder; a copy lies beside saved memory."""

START_DEADLINE_S = 30.0
"""Seconds for `runsc run`; normally 0.15, on a crowded machine a few."""


class Runsc:
    """Starts and removes sandboxes under gVisor."""

    name = "runsc"
    guest_frees_memory = True

    def __init__(self, binary: str, places: Places, guest_dir: Path, cgroups: Cgroups) -> None:
        self._binary = binary
        self._places = places
        self._guest_dir = guest_dir
        self._cgroups = cgroups
        self._saver = RunscSaver(self._command(), places.runsc_root)
        self._needs: Needs | None = None

    def start(self, spec: SandboxSpec, slot: Slot, folder: Path, saved: Saved | None) -> int:
        """Start a sandbox; the pid of its sentry."""
        # gVisor wants a directory to name as root, also where the image is the root.
        root = folder / "root"
        root.mkdir(mode=0o711)
        paths = Paths(
            root=root,
            guest_dir=self._guest_dir,
            layers=self._places.layers,
            cgroup=self._cgroups.path(spec.id),
            volumes=[self._places.data_of(mount.volume_id) for mount in spec.volumes],
        )
        bundle = runsc_bundle(spec, slot, paths)
        if saved is None:
            self._boot(spec, folder, bundle)
        elif saved.kind is SnapshotKind.MEMORY:
            self._restore(spec, folder, bundle, saved)
        else:
            self._boot(spec, folder, bundle, f"--fs-restore-image-path={saved.part}")
            wait = [*self._command(), "wait", "-fsrestore", spec.id]
            run(f"read the files of sandbox {spec.id}", wait, limits.CHECKPOINT_DEADLINE_S)
        return int((folder / "pid").read_text())

    def _boot(self, spec: SandboxSpec, folder: Path, bundle: Json, *options: str) -> None:
        self._launch(spec, folder, bundle, ["run", "--detach", *options], START_DEADLINE_S)
        # The sentry has read the limit by now, and tells it to the sandbox as its memory.
        self._cgroups.set_memory(spec.id, whole_memory(spec.resources.memory_mb))

    def _restore(self, spec: SandboxSpec, folder: Path, bundle: Json, saved: Saved) -> None:
        """What is read back may be all that the sandbox is allowed: what the sentry needs comes on top by a hook, which
        runs when the sentry has read the limit and has read back nothing yet."""
        guest_dir = self._places.guests / saved.manifest.guest
        if not guest_dir.exists():
            raise CheckpointUnusable(f"cannot restore checkpoint {saved.manifest.id}: the guestd that it runs is gone")
        try:
            whole = rehoused(json.loads((saved.part / BUNDLE).read_text()), bundle, guest_dir)
        except ValueError as error:
            raise CheckpointUnusable(f"cannot restore checkpoint {saved.manifest.id}: {error}") from error
        raising = self._cgroups.raising(spec.id, whole_memory(spec.resources.memory_mb))
        hooked = {**whole, "hooks": {"createRuntime": [{"path": raising[0], "args": raising}]}}
        options = ["restore", "--detach", f"--image-path={saved.part}"]
        self._launch(spec, folder, hooked, options, limits.CHECKPOINT_DEADLINE_S)

    def _launch(self, spec: SandboxSpec, folder: Path, bundle: Json, verb: Sequence[str], deadline_s: float) -> None:
        (folder / BUNDLE).write_text(json.dumps(bundle))
        overlay = f"--overlay2=root:dir={self._places.layers},size={spec.resources.disk_mb}m"
        place = [f"--bundle={folder}", f"--pid-file={folder / 'pid'}", spec.id]
        argv, entry = [*self._command(), overlay, *verb, *place], self._cgroups.background
        launch(f"start sandbox {spec.id}", argv, "--log=", deadline_s, entry if spec.in_background else None)

    def delete(self, sandbox_id: str, folder: Path) -> None:
        """Kill and forget a sandbox. Idempotent: `--force` makes an unknown one a success."""
        self._saver.make_legible(sandbox_id, folder)
        argv = [*self._command(), "delete", "--force", sandbox_id]
        run(f"remove sandbox {sandbox_id}", argv, limits.KILL_DEADLINE_S)

    def _command(self) -> list[str]:
        return [
            self._binary,
            f"--root={self._places.runsc_root}",
            f"--shared-root={self._places.runsc_shared}",
            "--platform=systrap",
            "--network=sandbox",
            "--allow-suid",
            "--host-uds=none",
            "--host-fifo=none",
            "--net-raw=false",
            "--host-settings=ignore",
            # Restored elsewhere, a connection of an earlier life has ended instead of waiting for ever.
            "--allow-live-tcp-migration=false",
            # Ids, namespaces, cgroup and host name of what is restored are new ones.
            "--restore-spec-validation=warning",
            # Whatever a sandbox reads of a volume may just have been written by another.
            "--file-access-mounts=shared",
        ]

    def reclaim(self, record: Record) -> int:
        return self._cgroups.reclaim(record.id)

    @property
    def keeps_memory(self) -> bool:
        return True

    @property
    def needs(self) -> Needs:
        if self._needs is None:
            self._needs = needs_of(self._binary)
        return self._needs

    def halt(self, record: Record, folder: Path) -> None:
        self._saver.halt(record.id, folder)

    def save(self, record: Record, folder: Path, target: Path, manifest: Manifest) -> Manifest:
        self._saver.save(record.id, target, manifest.kind)
        if manifest.kind is SnapshotKind.FILESYSTEM:
            return manifest
        bundle = (folder / BUNDLE).read_text()
        (target / PARTS[manifest.kind] / BUNDLE).write_text(bundle)
        needs, guest = self.needs, guest_of(json.loads(bundle)).name
        return replace(manifest, build=needs.build, cpu_flags=tuple(sorted(needs.cpu_flags)), guest=guest)

    def wake(self, record: Record, folder: Path) -> None:
        self._saver.wake(record.id, folder)

    def prepare(self, slot: Slot) -> None:
        """Nothing: the sentry brings all it needs."""

    def drop_image(self, path: str) -> None:
        """Nothing is held: each sentry has it open itself."""

    def close(self) -> None:
        """Nothing is held."""

    def disk_used(self, record: Record, folder: Path) -> int:
        """The sentry's filestore is an unlinked file in the layers folder; its blocks are what is written."""
        del folder
        return unlinked_bytes(record.pid, self._places.layers)

    def fence(self, record: Record) -> Fence:
        """The guest ends processes: the kernel's choice would be the sentry."""
        return fence(self._cgroups, record.id, whole_memory(record.memory_mb), guest_acts=self.guest_frees_memory)

    def refresh(self, record: Record, folder: Path) -> None:
        """The sentry keeps its own /proc."""


def whole_memory(memory_mb: int) -> int:
    """Bytes of a sandbox with that much memory of its own, and of what its sentry needs on top."""
    return memory_mb * MIB + SENTRY_BYTES


def unlinked_bytes(pid: int, folder: Path) -> int:
    """Bytes on disk of files below `folder` that a process holds open though they have no name any more."""
    try:
        entries = list(os.scandir(f"/proc/{pid}/fd"))
    except OSError:
        return 0
    sizes: dict[int, int] = {}
    for entry in entries:
        with contextlib.suppress(OSError):
            if os.readlink(entry.path).startswith(f"{folder}/"):
                found = os.stat(entry.path)
                sizes[found.st_ino] = found.st_blocks * 512
    return sum(sizes.values())
