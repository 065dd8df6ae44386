"""gVisor's command line."""

import contextlib
import json
import os
from pathlib import Path

from warren.contracts.engine import SandboxSpec
from warren.engine.oci.bundle import MIB, Paths, runsc_bundle
from warren.engine.oci.cgroup import Cgroups
from warren.engine.oci.command import run
from warren.engine.oci.launch import launch
from warren.engine.oci.places import Places
from warren.engine.oci.record import Record
from warren.engine.oci.slot import Slot
from warren.model import limits

START_DEADLINE_S = 30.0
"""Seconds for `runsc run`; normally 0.15, on a crowded machine a few."""
SENTRY_MEMORY_BYTES = 96 * MIB
"""Memory that gVisor's own processes may use beside what the sandbox was promised."""


class Runsc:
    """Starts and removes sandboxes under gVisor."""

    name = "runsc"

    def __init__(self, binary: str, places: Places, guest_dir: Path, cgroups: Cgroups) -> None:
        self._binary = binary
        self._places = places
        self._guest_dir = guest_dir
        self._cgroups = cgroups

    def start(self, spec: SandboxSpec, slot: Slot, folder: Path) -> int:
        """Start a sandbox; the pid of its sentry."""
        # gVisor wants a directory to name as root, also where the image is the root.
        root = folder / "root"
        root.mkdir(mode=0o711)
        paths = Paths(
            root=root, guest_dir=self._guest_dir, layers=self._places.layers, cgroup=self._cgroups.path(spec.id)
        )
        (folder / "config.json").write_text(json.dumps(runsc_bundle(spec, slot, paths)))
        pid_file = folder / "pid"
        overlay = f"--overlay2=root:dir={self._places.layers},size={spec.resources.disk_mb}m"
        argv = [*self._command(), overlay, "run", "--detach", f"--bundle={folder}", f"--pid-file={pid_file}", spec.id]
        launch(f"start sandbox {spec.id}", argv, "--log=", START_DEADLINE_S)
        # The sentry has read the limit and tells it to the sandbox as its memory; its own needs come on top.
        self._cgroups.raise_memory(spec.id, spec.resources.memory_mb * MIB + SENTRY_MEMORY_BYTES)
        return int(pid_file.read_text())

    def delete(self, sandbox_id: str, folder: Path) -> None:
        """Kill and forget a sandbox. Idempotent: `--force` makes an unknown one a success."""
        del folder
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
        ]

    def prepare(self, slot: Slot) -> None:
        """Nothing: the sentry brings all it needs."""

    def close(self) -> None:
        """Nothing is held."""

    def disk_used(self, record: Record, folder: Path) -> int:
        """The sentry's filestore is an unlinked file in the layers folder; its blocks are what is written."""
        del folder
        return unlinked_bytes(record.pid, self._places.layers)

    def refresh(self, record: Record, folder: Path) -> None:
        """The sentry keeps its own /proc."""


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
