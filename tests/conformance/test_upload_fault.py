"""Contract 3.5, 6.2.4 and Warren's own promise: an upload happens whole or not at all."""

from __future__ import annotations

import contextlib
import gzip
import shutil
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from e2b import NotEnoughSpaceException, Sandbox

from .daemon import FEW_INODES
from .processes import eventually
from .wire import Wire, command

if TYPE_CHECKING:
    from .daemon import Daemon

OCTETS = {"Content-Type": "application/octet-stream"}
TOO_MUCH = 3 << 20  # more than the small disk holds
BIG = 256 << 20
ROOM = 40 << 20  # bytes that guestd may need for any one transfer


def inside(daemon: Daemon, name: str) -> Path:
    """A mount of the daemon's own namespace, seen from the host."""
    return Path(f"/proc/{daemon.pid}/root{daemon.folder}/{name}")


@pytest.mark.parametrize("octets", [False, True])
def test_full_disk_is_507_and_leaves_the_old_file(guest: Daemon, sandbox: Sandbox, octets: bool) -> None:
    small = inside(guest, "small")
    sandbox.files.write(f"{guest.folder}/small/f", "old")
    with pytest.raises(NotEnoughSpaceException):
        sandbox.files.write(f"{guest.folder}/small/f", b"x" * TOO_MUCH, use_octet_stream=octets)
    assert [path.name for path in small.iterdir()] == ["f"]
    assert (small / "f").read_text() == "old"


def test_full_inodes_are_507(guest: Daemon, wire: Wire) -> None:
    few = inside(guest, "few")
    made = [few / f"filler{i}" for i in range(FEW_INODES)]
    with contextlib.suppress(OSError):
        for path in made:
            path.touch()
    response = wire.files("POST", params={"path": f"{guest.folder}/few/f"}, content=b"x", headers=OCTETS)
    assert (response.status_code, response.json()["code"]) == (507, 507)
    for path in made:
        path.unlink(missing_ok=True)


def test_mounted_file_is_written_in_place(fresh_wire: Wire) -> None:
    """Runtimes bind files like /etc/hosts over the image: nothing can be renamed over a mount."""
    folder = fresh_wire.daemon.folder / "home"
    (folder / "source").write_text("old content that is longer")
    (folder / "target").touch()
    fresh_wire.daemon.mount("--bind", f"{folder}/source", f"{folder}/target")
    response = fresh_wire.files("POST", params={"path": f"{folder}/target"}, content=b"new", headers=OCTETS)
    assert response.status_code == 200, response.text
    assert (folder / "source").read_text() == "new"
    assert sorted(path.name for path in folder.iterdir()) == ["root", "source", "target", "user"]


def test_read_only_disk_is_an_error_with_a_reason(fresh_wire: Wire) -> None:
    folder = fresh_wire.daemon.folder / "home/user"
    fresh_wire.daemon.mount("-t", "tmpfs", "-o", "ro", "readonly", str(folder))
    response = fresh_wire.files("POST", params={"path": f"{folder}/f"}, content=b"x", headers=OCTETS)
    assert 400 <= response.status_code <= 507
    assert response.json()["code"] == response.status_code
    assert "read-only" in response.json()["message"]


def test_running_program_can_be_replaced(wire: Wire, folder: Path) -> None:
    shutil.copy("/bin/sleep", folder / "program")
    with wire.stream("process.Process/Start", command(f"{folder}/program", "600", stdin=False)) as arriving:
        pid = next(arriving).event["start"]["pid"]
        response = wire.files("POST", params={"path": f"{folder}/program"}, content=b"#!/bin/sh\n", headers=OCTETS)
        assert response.status_code == 200, response.text
        assert (folder / "program").stat().st_mode & 0o111
        wire.ok("process.Process/SendSignal", {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"})


def test_reader_sees_the_old_file_until_the_new_one_is_whole(guest: Daemon, wire: Wire, folder: Path) -> None:
    (folder / "f").write_text("old")
    half = b"n" * 300_000
    with begun(guest, wire, f"{folder}/f", 2 * len(half)) as upload:
        upload.sendall(half)
        eventually(lambda: len(list(folder.iterdir())) > 1, "the new file is on its way")
        assert (folder / "f").read_text() == "old"
        upload.sendall(half)
        assert upload.recv(100).startswith(b"HTTP/1.1 200")
    assert (folder / "f").read_bytes() == half * 2
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("existing", [False, True])
def test_client_that_leaves_half_way_changes_nothing(guest: Daemon, wire: Wire, folder: Path, existing: bool) -> None:
    if existing:
        (folder / "f").write_text("old")
    with begun(guest, wire, f"{folder}/f", 10_000_000) as upload:
        upload.sendall(b"n" * 300_000)
        eventually(lambda: len(list(folder.iterdir())) > existing, "the new file is on its way")
    eventually(lambda: len(list(folder.iterdir())) == existing, "the half file was taken away")
    assert not existing or (folder / "f").read_text() == "old"


def begun(guest: Daemon, wire: Wire, path: str, length: int) -> socket.socket:
    """The head of an upload whose body a test sends by hand."""
    connection = socket.create_connection(("127.0.0.1", guest.port), timeout=20)
    head = [f"POST /files?path={path} HTTP/1.1", f"Host: 127.0.0.1:{guest.port}", f"Content-Length: {length}"]
    head += [f"{name}: {value}" for name, value in wire.headers(OCTETS).items()]
    connection.sendall("\r\n".join([*head, "", ""]).encode())
    return connection


def test_multipart_that_breaks_off_changes_nothing(wire: Wire, folder: Path) -> None:
    (folder / "f").write_text("old")
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nhalf of it'
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    response = wire.files("POST", params={"path": f"{folder}/f"}, content=body, headers=headers)
    assert response.status_code >= 400
    assert response.json()["code"] == response.status_code
    assert [path.name for path in folder.iterdir()] == ["f"]
    assert (folder / "f").read_text() == "old"


def test_writers_at_once_leave_one_whole_file(wire: Wire, folder: Path) -> None:
    contents = [letter * 500_000 for letter in (b"a", b"b", b"c", b"d")]

    def write(content: bytes) -> None:
        caller = Wire(wire.daemon)
        for _ in range(5):
            response = caller.files("POST", params={"path": f"{folder}/f"}, content=content, headers=OCTETS)
            assert response.status_code == 200

    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
    assert (folder / "f").read_bytes() in contents
    assert len(list(folder.iterdir())) == 1


@pytest.mark.timeout(120)
@pytest.mark.parametrize("octets", [False, True])
def test_big_file_passes_in_bounded_memory(guest: Daemon, wire: Wire, folder: Path, octets: bool) -> None:
    guest.reset_peak()
    head = b"" if octets else b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
    tail = b"" if octets else b"\r\n--b--\r\n"
    kind = "application/octet-stream" if octets else "multipart/form-data; boundary=b"
    block = bytes(1 << 20)
    chunks = (head, *([block] * (BIG >> 20)), tail)
    response = wire.files("POST", params={"path": f"{folder}/f"}, content=iter(chunks), headers={"Content-Type": kind})
    assert response.status_code == 200, response.text
    assert (folder / "f").stat().st_size == BIG
    assert guest.growth() < ROOM


def test_a_bomb_of_gzip_meets_the_disk_and_not_the_memory(guest: Daemon, wire: Wire) -> None:
    guest.reset_peak()
    bomb = gzip.compress(bytes(BIG), compresslevel=1)
    params = {"path": f"{guest.folder}/small/bomb"}
    headers = {**OCTETS, "Content-Encoding": "gzip"}
    assert wire.files("POST", params=params, content=bomb, headers=headers).status_code == 507
    assert guest.growth() < ROOM
    assert "bomb" not in [path.name for path in inside(guest, "small").iterdir()]
