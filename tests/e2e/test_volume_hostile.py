"""Root in a sandbox against whoever else touches its volume: the server that reads, writes, lists and deletes there."""

import contextlib
import io
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from e2b import CommandHandle, Sandbox, Volume
from e2b.exceptions import NotFoundException, SandboxException, VolumeException

from tests.e2e.local_server import LocalServer

pytestmark = [pytest.mark.usefixtures("server"), pytest.mark.threat("A9")]
Create = Callable[..., Sandbox]
ROUNDS = 60
REFUSED = (VolumeException, NotFoundException)
SWAPPER = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
os.chdir('/v')
os.makedirs('dir', exist_ok=True)
open('dir/file', 'w').write('inside')
os.symlink('/etc', 'link')
os.symlink('../../../../../../etc', 'up')
open('/tmp/ready', 'w').close()
while True:
    for other in ('link', 'up'):
        os.rename('dir', 'aside')
        os.rename(other, 'dir')
        os.rename('dir', other)
        os.rename('aside', 'dir')
"""
"""Swaps a directory for links to the host's and back, as fast as it can."""


@pytest.fixture
def volume() -> Iterator[Volume]:
    made = Volume.create(f"vol-{secrets.token_hex(4)}")
    yield made
    Volume.destroy(made.volume_id)


@pytest.fixture
def box(volume: Volume, create: Create) -> Sandbox:
    return create(volume_mounts={"/v": volume})


def as_root(box: Sandbox, script: str) -> str:
    return box.commands.run(script, user="root").stdout


def test_links_end_within_the_volume(volume: Volume, box: Sandbox) -> None:
    as_root(
        box,
        "cd /v; ln -s /etc/passwd abs; ln -s ../../../../etc/passwd up; ln -s /etc dir; ln -s / root; ln -s loop loop",
    )
    for path in ("/abs", "/up", "/dir/passwd", "/root/etc/passwd", "/../../../etc/passwd", "/root/proc/self/environ"):
        assert not volume.exists(path) or volume.get_info(path).type == "symlink"
        with pytest.raises(NotFoundException):
            volume.read_file(path)
    assert volume.get_info("/abs").target == "/etc/passwd"
    with pytest.raises(VolumeException, match="400"):
        volume.read_file("/loop")
    volume.write_file("/etc/passwd", "of the volume", force=True)
    for path in ("/abs", "/up", "/dir/passwd", "/root/root/etc/passwd"):
        assert volume.read_file(path) == "of the volume"
    volume.write_file("/abs", "replaced")
    assert (volume.get_info("/abs").type, volume.read_file("/up")) == ("file", "of the volume")
    volume.remove("/dir")
    assert volume.exists("/etc/passwd")
    assert Path("/etc/passwd").read_text().startswith("root:")


def test_special_files_make_nobody_wait_and_tell_nothing(volume: Volume, box: Sandbox) -> None:
    made = as_root(
        box,
        "cd /v; mkfifo fifo; mknod zero c 1 5; mknod disk b 8 0; mkdir d; mkfifo d/fifo;"
        "python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('/v/socket')\"; ls /v",
    )
    assert "disk" not in made.split()
    for name in ("fifo", "zero", "socket"):
        with contextlib.suppress(*REFUSED):
            assert volume.get_info(f"/{name}").type == "unknown"
        for do in (volume.read_file, volume.list):
            with pytest.raises(REFUSED):
                do(f"/{name}")
        with contextlib.suppress(*REFUSED):
            volume.write_file(f"/{name}", "now a file")
    volume.remove("/d")


def test_set_id_bits_and_devices_mean_nothing_on_the_host(server: LocalServer, volume: Volume, box: Sandbox) -> None:
    as_root(box, "cp /bin/sleep /v/tool; chown 0:0 /v/tool; chmod 6755 /v/tool")
    assert volume.exists("/tool")
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    (line,) = [line for line in lines if line.split()[4].endswith(f"/volumes/{volume.volume_id}")]
    place, options = Path(line.split()[4]), line.split()[5].split(",")
    assert {"nosuid", "nodev"} <= set(options)
    assert place.parent.stat().st_mode & 0o077 == 0
    assert str(place).startswith(f"/run/warren/{server.bridge}/")
    assert volume.update_metadata("/tool", mode=0o755).mode == 0o755
    with pytest.raises(VolumeException, match="400"):
        volume.update_metadata("/tool", mode=0o4755)


def test_renames_during_the_call_lead_nowhere(volume: Volume, box: Sandbox) -> None:
    box.files.write("/tmp/swap.py", SWAPPER)
    swapper = box.commands.run("python3 /tmp/swap.py", user="root", background=True, timeout=0)
    threading.Thread(target=_hear, args=(swapper,), daemon=True).start()
    box.commands.run("until [ -e /tmp/ready ]; do sleep 0.05; done")
    before = {path.name for path in Path("/etc").iterdir()}
    seen: set[str] = set()
    for number in range(ROUNDS):
        for do in (
            lambda: seen.add(str(volume.read_file("/dir/file"))),
            lambda: seen.add(str(volume.read_file("/dir/passwd"))),
            lambda: seen.update(entry.name for entry in volume.list("/dir")),
            lambda number=number: volume.write_file(f"/dir/planted-{number}", "x"),
            lambda: volume.update_metadata("/dir/file", mode=0o640),
            lambda number=number: volume.remove(f"/dir/planted-{number}"),
        ):
            with contextlib.suppress(*REFUSED):
                do()
    assert {word for word in seen if not word.startswith("planted-")} <= {"inside", "file"}
    assert {path.name for path in Path("/etc").iterdir()} == before
    box.commands.kill(swapper.pid)


def _hear(swapper: CommandHandle) -> None:
    with contextlib.suppress(Exception):  # it is killed in the end
        swapper.wait()


def test_a_directory_deleted_under_a_process_is_no_way_out(volume: Volume, box: Sandbox) -> None:
    as_root(box, "mkdir -p /v/a/b/c; echo secret > /v/kept")
    script = (
        "cd /v/a/b/c; touch /tmp/there; until [ ! -e /v/a ]; do sleep 0.05; done; "
        "for d in . .. ../.. ../../.. ../../../.. ../../../../..; do ls -A $d 2>/dev/null; done; "
        "touch x 2>/dev/null; touch ../x 2>/dev/null; cat ../../../../data/kept 2>/dev/null; echo done"
    )
    handle = box.commands.run(script, user="root", background=True)
    box.commands.run("until [ -e /tmp/there ]; do sleep 0.05; done")
    volume.remove("/a")
    said = set(handle.wait().stdout.split())
    assert said.isdisjoint({"data", "staging", "lost+found", "secret"})
    assert "done" in said
    assert [entry.path for entry in volume.list("/")] == ["/kept"]


def test_depth_breadth_names_and_sizes_break_nothing(volume: Volume, box: Sandbox) -> None:
    code = (
        "import os; os.chdir('/v'); os.mkdir('deep'); os.chdir('deep')\n"
        "for _ in range(2000): os.mkdir('d'); os.chdir('d')\n"
        "os.mkdir('/v/wide')\n"
        "for n in range(11000): open(f'/v/wide/{n}', 'w').close()\n"
        "os.mkdir('/v/odd')\n"
        "odd = (b'\\xff\\xfe', b'new\\nline', b'a' * 255, b'\\x1b[2J', '\\u202e'.encode())\n"
        "for name in odd: open(b'/v/odd/' + name, 'w').close()\n"
        "f = open('/v/giant', 'wb'); f.truncate(1 << 40)\n"
    )
    box.files.write("/tmp/break.py", code)
    with contextlib.suppress(SandboxException):
        box.commands.run("python3 /tmp/break.py", user="root", timeout=100)
    assert len(volume.list("/odd")) >= 4
    with pytest.raises(VolumeException, match="one directory at a time"):
        volume.list("/wide")
    assert len(volume.list("/deep", depth=256)) == 256
    for path in ("/deep", "/wide", "/odd"):
        volume.remove(path)
        assert not volume.exists(path)
    stream = volume.read_file("/giant", format="stream")
    assert next(iter(stream))
    assert volume.write_file("/after", io.BytesIO(b"x")).size == 1
