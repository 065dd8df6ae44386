"""Contract 3.4, 6.2.3: watching a network file system is refused unless the client insists."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from e2b import InvalidArgumentException

from . import fuse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2b import Sandbox

    from .daemon import Daemon
    from .wire import Wire

WATCH = "filesystem.Filesystem/WatchDir"


@pytest.fixture
def mounted(guest: Daemon, folder: Path) -> Iterator[Path]:
    """A FUSE mount that only the daemon's namespace sees."""
    if not Path("/dev/fuse").exists():
        pytest.skip("cannot mount FUSE: this kernel does not have it")
    enter = ["nsenter", "--mount", f"--target={guest.pid}", sys.executable, str(fuse.__file__), str(folder)]
    with subprocess.Popen(enter, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/") as server:
        assert server.stdin is not None
        assert server.stdout is not None
        assert server.stdout.readline() == b"mounted\n"
        yield folder
        server.stdin.close()
        server.wait(10)


def test_network_mount_is_refused(sandbox: Sandbox, wire: Wire, mounted: Path) -> None:
    with pytest.raises(InvalidArgumentException):
        sandbox.files.watch_dir(str(mounted))
    with wire.stream(WATCH, {"path": str(mounted)}) as arriving:
        (end,) = list(arriving)
    assert end.json["error"]["code"] == "invalid_argument"


def test_network_mount_is_watched_when_the_client_insists(sandbox: Sandbox, mounted: Path) -> None:
    handle = sandbox.files.watch_dir(str(mounted), allow_network_mounts=True)
    assert handle.get_new_events() == []
    handle.stop()


def test_folder_beside_a_network_mount_is_watched(sandbox: Sandbox, mounted: Path) -> None:
    assert os.path.ismount(mounted) is False  # the host does not see it
    sandbox.files.watch_dir(str(mounted.parent)).stop()
