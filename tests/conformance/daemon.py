"""A real guestd as an ordinary process of this machine, in a mount namespace of its own.

The namespace lets a test give the daemon its own users and small disks without touching a file of
the host: the password and group files are bound over, the disks are tmpfs mounts that vanish with it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from .processes import children_of

if TYPE_CHECKING:
    from types import TracebackType

BINARY = Path(os.environ.get("GUESTD", Path(__file__).parents[2] / "guestd/bin/guestd"))
FOLDERS = f"guestd-conformance-{os.getpid()}-"  # of this process: others may run the suite beside it
START_DEADLINE = 10.0  # seconds until the first answer; a busy machine needs far less
STOP_DEADLINE = 10.0  # seconds between SIGTERM and SIGKILL
SMALL_DISK = "1m"  # tmpfs that a test can fill at once
FEW_INODES = 16  # files that a test can use up at once

# One shell line prepares the namespace and then becomes the daemon, so that its pid is the one we started.
ENTER = (
    'mount --bind "$1/passwd" /etc/passwd && mount --bind "$1/group" /etc/group'
    f' && mount -t tmpfs -o size={SMALL_DISK},mode=0777 small "$1/small"'
    f' && mount -t tmpfs -o size=64m,nr_inodes={FEW_INODES},mode=0777 few "$1/few"'
    ' && shift && exec "$@"'
)


@dataclass
class Daemon:
    """One running guestd and the folder that holds all of its files."""

    folder: Path
    port: int
    as_init: bool = False
    flags: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    token: str | None = None
    control_token: str | None = None
    baseline: int = 0

    @classmethod
    def start(cls, *flags: str, as_init: bool = False, wait: bool = True) -> Daemon:
        folder = Path(tempfile.mkdtemp(prefix=FOLDERS))
        folder.chmod(0o755)  # the test users live in it
        write_accounts(folder)
        daemon = cls(folder=folder, port=free_port(), as_init=as_init, flags=flags)
        daemon.launch()
        if wait:
            daemon.wait_until_healthy()
        return daemon

    def launch(self) -> None:
        own_pids = ["--pid", "--fork", "--kill-child", "--mount-proc"] if self.as_init else []
        command = [
            *("unshare", "--mount", "--propagation", "private", *own_pids, "--"),
            *("/bin/sh", "-c", ENTER, "sh", str(self.folder), *self.command()),
        ]
        log = (self.folder / "guestd.log").open("wb")
        with log:
            environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def command(self) -> list[str]:
        address = f"127.0.0.1:{self.port}"
        folders = ["-etc", self.etc, "-run-dir", self.run_dir]
        folders += ["-warren-dir", self.folder / "warren", "-keep-dir", self.folder / "keep"]
        return [str(BINARY), "-listen", address, *map(str, folders), *self.flags]

    def wait_until_healthy(self) -> None:
        deadline = time.monotonic() + START_DEADLINE
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{self.url}/health", timeout=1.0).status_code == 204:
                    return
            except httpx.TransportError:
                pass
            assert self.running, f"guestd ended at once: {self.log()}"
            time.sleep(0.005)
        raise TimeoutError(f"cannot reach guestd within {START_DEADLINE} s; its log: {self.log()}")

    def mount(self, *arguments: str) -> None:
        """Mount something that only the daemon's namespace sees."""
        enter = ["nsenter", "--mount", f"--target={self.pid}", "mount"]
        subprocess.run([*enter, *arguments], check=True, timeout=10, stdin=subprocess.DEVNULL)

    def init(self, **settings: Any) -> httpx.Response:
        """Send POST /init, and remember the tokens that it set."""
        headers = self.control_headers()
        if self.token is not None:
            headers["X-Access-Token"] = self.token
        response = httpx.post(f"{self.url}/init", json=settings, headers=headers, timeout=5.0)
        if response.status_code == 204:
            self.token = settings.get("accessToken")
            self.control_token = settings.get("controlToken") or self.control_token
        return response

    def control_headers(self) -> dict[str, str]:
        return {} if self.control_token is None else {"X-Warren-Control": self.control_token}

    def stop(self) -> int:
        """End the daemon and take its folder away; gives the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
        try:
            code = self.process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait(STOP_DEADLINE)
        shutil.rmtree(self.folder)
        return code

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        """The pid of guestd itself, as the host sees it."""
        assert self.process is not None
        if not self.as_init:
            return self.process.pid
        return children_of(self.process.pid)[0]

    @property
    def etc(self) -> Path:
        return self.folder / "etc"

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    def home(self, user: str) -> Path:
        return self.folder / "home" / user

    def log(self) -> str:
        return (self.folder / "guestd.log").read_text(errors="replace")[-4000:]

    def memory(self, name: str) -> int:
        """A line of /proc/PID/status in bytes: VmRSS is now, VmHWM the highest."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
        raise LookupError(name)

    def reset_peak(self) -> None:
        """Begin to measure growth; what earlier tests left in the heap does not count."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        self.baseline = self.memory("VmRSS")

    def growth(self) -> int:
        """How far memory went above the level of reset_peak, at its highest."""
        return self.memory("VmHWM") - self.baseline

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))


def write_accounts(folder: Path) -> None:
    """Three users: root, one with a supplementary group, and one without a home."""
    for name in ("etc", "run", "small", "few", "home", "home/root", "home/user"):
        (folder / name).mkdir()
    os.chown(folder / "home/user", 1000, 1000)
    home = folder / "home"
    (folder / "passwd").write_text(
        f"root:x:0:0:root:{home}/root:/bin/bash\n"
        f"user:x:1000:1000::{home}/user:/bin/bash\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    )
    (folder / "group").write_text(
        "root:x:0:\nuser:x:1000:\ncrew:x:2000:user\nmates:x:2001:root,user\nnogroup:x:65534:\n"
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
