"""What `runsc checkpoint` and `runsc restore` cost by hand, on the template's image with the same heap: the floor
under every pause and resume of ours."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.samples import Samples, milliseconds
from warren.engine.oci.process import wait_over

CALL_DEADLINE_S = 60.0
READY = "ready"
PROGRAM = "import os,time; heap=bytearray(os.urandom({mib} << 20)); open('/tmp/ready','w').close(); time.sleep(9999)"


def measure(runsc: str, image: Path, heap_mib: int, times: int) -> tuple[Samples, Samples]:
    """(checkpoint with the sandbox going on, restore into a new sandbox), in milliseconds."""
    with _floor(runsc, image, heap_mib) as floor:
        saved = Samples().measure(times, floor.checkpoint)
        restored = Samples().measure(times, floor.restore)
    return saved, restored


class Floor:
    def __init__(self, runsc: str, folder: Path, image: Path, heap_mib: int) -> None:
        self._folder, self._image = folder, image
        self._base = [runsc, f"--root={folder / 'root'}", "--network=none", "--platform=systrap"]
        self._bundle = folder / "bundle"
        self._made = 0
        (self._bundle / "rootfs").mkdir(parents=True)
        (folder / "mounted").mkdir()
        (self._bundle / "config.json").write_text(json.dumps(self._config(heap_mib)))

    def start(self) -> None:
        self._call("run", "--detach", f"--bundle={self._bundle}", "source")
        ends = time.monotonic() + CALL_DEADLINE_S
        while subprocess.run(
            [*self._base, "exec", "source", "test", "-e", "/tmp/ready"], capture_output=True, check=False
        ).returncode:
            if time.monotonic() > ends:
                raise RuntimeError("cannot see the program's heap filled")

    def checkpoint(self) -> float:
        place = self._folder / "image"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        return milliseconds(lambda: self._call("checkpoint", "--leave-running", f"--image-path={place}", "source"))

    def restore(self) -> float:
        self._made += 1
        name, place = f"copy{self._made}", self._folder / "image"
        options = ("--detach", f"--bundle={self._bundle}", f"--image-path={place}", name)
        try:
            return milliseconds(lambda: self._call("restore", *options))
        finally:
            self._call("delete", "--force", name)

    def end(self) -> None:
        self._call("delete", "--force", "source")
        subprocess.run(["umount", self._folder / "root" / "null-netns"], check=False, capture_output=True)

    def _call(self, *arguments: str) -> None:
        # Not a pipe: the sandbox inherits it, and reading it would last as long as the sandbox.
        with (self._folder / "words").open("wb+") as words:
            called = subprocess.Popen(
                [*self._base, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=words
            )
            pidfd = os.pidfd_open(called.pid)
            try:
                if not wait_over(pidfd, CALL_DEADLINE_S):  # `subprocess` would look for its end in naps of 50 ms
                    called.kill()
            finally:
                os.close(pidfd)
            if called.wait():
                words.seek(0)
                raise RuntimeError(f"cannot runsc {arguments[0]}: {words.read()[-300:].decode(errors='replace')}")

    def _config(self, heap_mib: int) -> dict[str, object]:
        bind = {"destination": "/mnt", "type": "bind", "source": str(self._folder / "mounted"), "options": ["ro"]}
        return {
            "ociVersion": "1.0.2",
            "root": {"path": str(self._bundle / "rootfs")},
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": ["python3", "-c", PROGRAM.format(mib=heap_mib)],
                "env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
                "cwd": "/",
            },
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}, bind],
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")]},
            "annotations": {
                "dev.gvisor.spec.rootfs.type": "erofs",
                "dev.gvisor.spec.rootfs.source": str(self._image),
                "dev.gvisor.spec.rootfs.overlay": "memory",
            },
        }


@contextmanager
def _floor(runsc: str, image: Path, heap_mib: int) -> Iterator[Floor]:
    with tempfile.TemporaryDirectory(prefix="warren-bench-floor-", dir="/var/tmp") as name:
        floor = Floor(runsc, Path(name), image, heap_mib)
        floor.start()
        try:
            yield floor
        finally:
            floor.end()
