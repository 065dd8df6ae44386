"""Where the engine keeps things: the run folder (gone after a reboot) and its part of the state folder."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from warren import durable
from warren.engine.oci.process import boot_id
from warren.engine.oci.volume_tree import DATA
from warren.model.errors import EngineFailed, Unavailable
from warren.settings import Settings

RUN_ROOT = Path("/run/warren")


@dataclass(frozen=True, slots=True)
class Places:
    run: Path
    state: Path

    @classmethod
    def of(cls, settings: Settings) -> "Places":
        return cls(run=RUN_ROOT / settings.bridge, state=settings.state_dir / "engine")

    @property
    def netns(self) -> Path:
        return self.run / "netns"

    @property
    def sandboxes(self) -> Path:
        return self.run / "sandboxes"

    @property
    def runsc_root(self) -> Path:
        return self.run / "runsc"

    @property
    def runsc_shared(self) -> Path:
        return self.run / "runsc-shared"

    @property
    def crun_root(self) -> Path:
        return self.run / "crun"

    @property
    def layers(self) -> Path:
        """Writable layers: on the state folder's disk, each file unlinked or removed with its sandbox."""
        return self.state / "layers"

    @property
    def blanks(self) -> Path:
        return self.state / "blank"

    @property
    def volumes(self) -> Path:
        """Images of volumes: what must never be lost lies here."""
        return self.state / "volumes"

    @property
    def mounts(self) -> Path:
        """Where volumes are mounted, each in a folder of its id."""
        return self.run / "volumes"

    def data_of(self, volume_id: str) -> Path:
        """What sandboxes see of a mounted volume."""
        return self.mounts / volume_id / DATA

    @property
    def guests(self) -> Path:
        return self.state / "guest"

    @property
    def checkpoints(self) -> Path:
        return self.state / "checkpoints"

    @property
    def bakes(self) -> Path:
        """Images in the making; on the disk of the finished ones."""
        return self.state / "bakes"

    @property
    def boot(self) -> Path:
        """Which boot of the machine the last sandbox was made in; unlike the run folder it outlives that boot."""
        return self.state / "boot"

    def is_of_this_boot(self) -> bool:
        return not self.boot.exists() or self.boot.read_text() == boot_id()

    def note_boot(self) -> None:
        """Not before the first new sandbox: until then a restart may have yet to be told from the last boot's rows."""
        if not (self.boot.exists() and self.is_of_this_boot()):
            durable.write(self.boot, boot_id())

    def make(self) -> None:
        """All of them, for root only: a sandbox's layer is nobody else's to read."""
        for folder in (self.netns, self.sandboxes, self.runsc_root, self.runsc_shared, self.crun_root, self.mounts):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
        for folder in (RUN_ROOT, self.run, self.sandboxes):
            folder.chmod(0o711)  # a sandbox's root user passes here on the way to its own root, see crun.py
        for folder in (self.layers, self.blanks, self.guests, self.volumes):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.state.chmod(0o700)

    def lock(self) -> "Hold":
        """Hold the state folder and the bridge's name for this process. Raises Unavailable when another has one."""
        self.state.mkdir(parents=True, exist_ok=True)
        RUN_ROOT.mkdir(parents=True, exist_ok=True)
        state = _lock_file(self.state / "lock", f"state folder {self.state.parent}", "WARREN_STATE_DIR")
        try:
            bridge = _lock_file(self.run.with_suffix(".lock"), f"bridge {self.run.name}", "WARREN_BRIDGE")
        except BaseException:
            os.close(state)
            raise
        return Hold((state, bridge), self.run.with_suffix(".lock"))


@dataclass(frozen=True, slots=True)
class Hold:
    """What keeps a second server away."""

    descriptors: tuple[int, ...]
    transient: Path

    def release(self) -> None:
        self.transient.unlink(missing_ok=True)
        for fd in self.descriptors:
            os.close(fd)


def _lock_file(path: Path, what: str, variable: str) -> int:
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise Unavailable(f"cannot use {what}: another server holds it; stop that one or set {variable}") from None
        if path.exists() and path.stat().st_ino == os.fstat(fd).st_ino:
            return fd
        os.close(fd)  # its last holder removed it between our two calls; the next round makes a new one


def install_guest(binary: str, guests: Path) -> Path:
    """A folder with a copy of guestd, named by its digest: a new build never changes a file that sandboxes run."""
    try:
        content = Path(binary).read_bytes()
    except OSError as error:
        raise EngineFailed(f"cannot read guestd at {binary!r}: {error.strerror}; run `make setup`") from None
    folder = guests / hashlib.sha256(content).hexdigest()
    if not (folder / "guestd").exists():
        fresh = guests / f".{folder.name}.{os.getpid()}"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o755)
        (fresh / "guestd").write_bytes(content)
        (fresh / "guestd").chmod(0o555)
        fresh.chmod(0o555)
        fresh.rename(folder)
    return folder


def forget_guests(guests: Path, needed: Set[str]) -> None:
    """Remove copies of other builds; only while no sandbox runs, for it may run one of them."""
    for folder in guests.iterdir():
        if folder.name not in needed:
            folder.chmod(0o700)
            shutil.rmtree(folder, ignore_errors=True)
