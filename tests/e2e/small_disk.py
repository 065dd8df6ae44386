"""A state folder on a disk of its own: small, full, filling up at the worst moment; and files that it damages."""

import errno
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.local_server import LocalServer
from warren.settings import load

PLENTY_MB, LITTLE_MB = 1024, 8
"""Of the disk: more than enough for any checkpoint here, and too little for half of one."""


@contextmanager
def on_a_disk_of_its_own(server: LocalServer, size_mb: int) -> Iterator[None]:
    """The state folder on a small file system, but for the templates, which are large and never written."""
    templates = server.folder / "templates"
    for image in load(server.settings | dict(os.environ)).cache_dir.glob("templates/*/template.json"):
        digest = json.loads(image.read_bytes())["digest"].removeprefix("sha256:")
        (templates / digest).mkdir(parents=True)
        os.link(image.with_name("rootfs.erofs"), templates / digest / "rootfs.erofs")
    server.state.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "small", str(server.state)], check=True)
    (server.state / "templates").mkdir()
    subprocess.run(["mount", "--bind", str(templates), str(server.state / "templates")], check=True)
    try:
        yield
    finally:
        for place in (server.state / "templates", server.state):
            subprocess.run(["umount", "--lazy", str(place)], check=True)  # the kernel lets go of loop devices later


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                assert error.errno == errno.ENOSPC


@contextmanager
def room_until_it_is_written(server: LocalServer, left_mb: int = LITTLE_MB, after_s: float = 0.0) -> Iterator[None]:
    """Plenty of it, until another checkpoint is begun: then what is there and a little more."""
    over, before = threading.Event(), set(checkpoints(server))

    def shrink() -> None:
        while not set(checkpoints(server)) - before:
            if over.wait(0.001):
                return
        over.wait(after_s)
        found = os.statvfs(server.state)
        resize(server, (found.f_blocks - found.f_bfree) * found.f_frsize // (1 << 20) + left_mb)

    resize(server, PLENTY_MB)
    watcher = threading.Thread(target=shrink)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        resize(server, PLENTY_MB)


def checkpoints(server: LocalServer) -> list[Path]:
    """Whole and half-written ones."""
    return list((server.state / "engine" / "checkpoints").iterdir())


def resize(server: LocalServer, size_mb: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size_mb}m", str(server.state)], check=True)


def spoil(image: Path, damage: str) -> None:
    size = image.stat().st_size
    with image.open("r+b") as file:
        if damage == "truncated":
            file.truncate(size // 2)
            return
        file.seek(size // 2)
        old = file.read(1)
        file.seek(size // 2)
        file.write(bytes([old[0] ^ 1]))
