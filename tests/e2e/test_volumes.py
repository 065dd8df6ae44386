"""Volumes through the clients: their files from outside, and from inside the sandboxes that mount them."""

import hashlib
import io
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from e2b import AsyncVolume, Sandbox, Volume
from e2b.exceptions import SandboxException, TimeoutException, VolumeException, VolumePathNotFoundException

from tests.e2e.local_server import LocalServer
from tests.memory_of import forget_peak, peak, resident

pytestmark = pytest.mark.usefixtures("server")
MIB = 1024 * 1024
Create = Callable[..., Sandbox]


def fresh_name() -> str:
    return f"vol-{secrets.token_hex(4)}"


@pytest.fixture
def volume(server: LocalServer) -> Iterator[Volume]:
    made = Volume.create(fresh_name())
    yield made
    Volume.destroy(made.volume_id)


@pytest.fixture
def small(server: LocalServer) -> Iterator[Volume]:
    """16 MiB, which only Warren's own field can ask for."""
    headers = {"X-API-KEY": server.api_key}
    answer = httpx.post(f"{server.api_url}/volumes", json={"name": fresh_name(), "sizeMB": 16}, headers=headers)
    assert answer.status_code == 201, answer.text
    yield Volume.connect(answer.json()["volumeID"])
    Volume.destroy(answer.json()["volumeID"])


@pytest.fixture
async def async_volume(server: LocalServer) -> AsyncIterator[AsyncVolume]:
    made = await AsyncVolume.create(fresh_name())
    yield made
    await AsyncVolume.destroy(made.volume_id)


@pytest.mark.covers("V01")
def test_a_volume_is_made_listed_found_and_destroyed() -> None:
    made = Volume.create(fresh_name())
    assert made.token
    assert made.name in [one.name for one in Volume.list()]
    found = Volume.connect(made.volume_id)
    assert (found.name, found.token) == (made.name, made.token)
    assert Volume.get_info(made.volume_id).name == made.name
    with pytest.raises(VolumeException, match="400"):
        Volume.create(made.name)
    assert Volume.destroy(made.volume_id) is True
    assert Volume.destroy(made.volume_id) is False
    assert made.name not in [one.name for one in Volume.list()]


@pytest.mark.covers("V02")
def test_files_go_in_and_come_out(volume: Volume) -> None:
    entry = volume.write_file("/a.txt", "naïve")
    assert (entry.name, entry.type, entry.path, entry.size, entry.mode) == ("a.txt", "file", "/a.txt", 6, 0o644)
    assert volume.read_file("/a.txt") == "naïve"
    assert volume.write_file("a.txt", b"\0\xff").size == 2
    assert volume.read_file("a.txt", format="bytes") == b"\0\xff"
    volume.write_file("/b", io.BytesIO(b"from a file"), uid=7, gid=8, mode=0o600)
    assert volume.read_file("/b") == "from a file"
    known = volume.get_info("/b")
    assert (known.uid, known.gid, known.mode) == (7, 8, 0o600)
    assert volume.exists("/b")
    changed = volume.update_metadata("/b", uid=9, mode=0o640)
    assert (changed.uid, changed.gid, changed.mode) == (9, 8, 0o640)
    volume.remove("/b")
    assert not volume.exists("/b")
    for gone in (lambda: volume.read_file("/b"), lambda: volume.remove("/b"), lambda: volume.get_info("/b")):
        with pytest.raises(VolumePathNotFoundException):
            gone()


@pytest.mark.covers("V02")
def test_directories_are_made_listed_and_removed(volume: Volume) -> None:
    with pytest.raises(VolumePathNotFoundException):
        volume.make_dir("/x/y/z")
    assert volume.make_dir("/x/y/z", force=True, mode=0o700).mode == 0o700
    with pytest.raises(VolumeException, match="409"):
        volume.make_dir("/x")
    with pytest.raises(VolumePathNotFoundException):
        volume.write_file("/no/parent", "x")
    volume.write_file("/x/made/file", "x", force=True)
    assert [one.path for one in volume.list("/")] == ["/x"]
    assert [one.path for one in volume.list("/x", depth=2)] == ["/x/made", "/x/made/file", "/x/y", "/x/y/z"]
    assert {one.path: one.type for one in volume.list("/x")} == {"/x/made": "directory", "/x/y": "directory"}
    volume.remove("/x")
    assert volume.list("/") == []
    with pytest.raises(VolumeException, match="400"):
        volume.remove("/")


@pytest.mark.covers("V02")
def test_large_files_are_streamed_both_ways_in_little_memory(server: LocalServer, volume: Volume) -> None:
    """As large as it may be: what the server takes is a part of it."""
    piece, times = os.urandom(MIB), 192
    forget_peak(server.pid)
    before = resident(server.pid)
    with io.FileIO(os.memfd_create("large"), "r+") as file:
        for _ in range(times):
            file.write(piece)
        file.write(b"end")
        file.seek(0)
        assert volume.write_file("/large", file).size == times * MIB + 3
    came = hashlib.sha256()
    for chunk in volume.read_file("/large", format="stream"):
        came.update(chunk)
    assert came.digest() == hashlib.sha256(piece * times + b"end").digest()
    assert peak(server.pid) - before < times * MIB // 3


@pytest.mark.covers("V01", "V02")
@pytest.mark.anyio
async def test_the_async_client_does_the_same(async_volume: AsyncVolume) -> None:
    assert async_volume.name in [one.name for one in await AsyncVolume.list()]
    found = await AsyncVolume.connect(async_volume.volume_id)
    await found.make_dir("/d")
    await found.write_file("/d/a", io.BytesIO(b"x" * 3 * MIB))
    assert b"".join([chunk async for chunk in await found.read_file("/d/a", format="stream")]) == b"x" * 3 * MIB
    assert [one.path for one in await found.list("/", depth=2)] == ["/d", "/d/a"]
    assert (await found.update_metadata("/d/a", mode=0o600)).mode == 0o600
    await found.remove("/d")
    assert not await found.exists("/d")


@pytest.mark.covers("V02")
def test_the_domain_alone_leads_to_the_files(
    server: LocalServer, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("E2B_VOLUME_API_URL")
    volume.write_file("/a", b"x" * 3 * MIB)
    assert volume.read_file("/a", format="bytes") == b"x" * 3 * MIB


@pytest.mark.covers("S23")
def test_two_sandboxes_and_the_api_see_each_other_at_once(volume: Volume, create: Create) -> None:
    one, two = [create(volume_mounts={"/mnt/shared": volume}) for _ in range(2)]
    one.commands.run("echo first > /mnt/shared/a && mkdir /mnt/shared/d")
    assert two.commands.run("cat /mnt/shared/a && ls /mnt/shared").stdout == "first\na\nd\n"
    assert volume.read_file("/a") == "first\n"
    two.commands.run("echo second >> /mnt/shared/a; ln -s a /mnt/shared/d/link")
    assert one.commands.run("cat /mnt/shared/a").stdout == "first\nsecond\n"
    volume.write_file("/d/from-outside", "third")
    for box in (one, two):
        assert box.files.read("/mnt/shared/d/from-outside") == "third"
        assert box.commands.run("cd /mnt/shared && stat -c %U d/from-outside && rm -f nothing").stdout == "user\n"
    one.commands.run("mv /mnt/shared/a /mnt/shared/b && rm -r /mnt/shared/d")
    assert two.commands.run("ls /mnt/shared").stdout == "b\n"
    assert [entry.path for entry in volume.list("/")] == ["/b"]


@pytest.mark.covers("S23")
def test_what_two_sandboxes_write_at_once_is_all_there(volume: Volume, create: Create, runtime: str) -> None:
    """Into one file under crun; gVisor's kernels know nothing of each other's appends, so there each has its own."""
    boxes = [create(volume_mounts={"/v": volume}) for _ in range(2)]
    handles = [
        box.commands.run(
            f"for i in $(seq 200); do echo {number}-$i >> /v/{'log' if runtime == 'crun' else number}; done",
            background=True,
        )
        for number, box in enumerate(boxes)
    ]
    for handle in handles:
        handle.wait()
    expected = {f"{number}-{line}" for number in range(2) for line in range(1, 201)}
    for box in boxes:
        assert set(box.commands.run("cat /v/*").stdout.split()) == expected
    assert set("".join(str(volume.read_file(entry.path)) for entry in volume.list("/")).split()) == expected


@pytest.mark.covers("S23")
def test_what_a_sandbox_has_written_survives_its_sudden_end(
    server: LocalServer, volume: Volume, create: Create
) -> None:
    """kill -9 of the runtime's process in the middle of writes that are said to be done."""
    box, heard = create(volume_mounts={"/v": volume}), list[str]()

    def hear(text: str) -> None:
        heard.append(text)
        if len(heard) == 50:
            server.end_process_of(box.sandbox_id)

    writer = box.commands.run("n=0; while :; do echo $n >> /v/log; echo $n; n=$((n+1)); done", background=True)
    with pytest.raises(TimeoutException):
        writer.wait(on_stdout=hear)
    kept = [int(line) for line in str(volume.read_file("/log")).split()]
    assert kept == list(range(len(kept)))
    assert len(kept) >= "".join(heard).count("\n") >= 50


@pytest.mark.covers("S23")
def test_a_volume_is_shared_between_the_runtimes(server: LocalServer, volume: Volume) -> None:
    on = [{"api_headers": {"X-Warren-Runtime": name}} for name in ("runsc", "crun")]
    boxes = [Sandbox.create(volume_mounts={"/v": volume}, **options) for options in on]
    try:
        for writer, reader in (boxes, boxes[::-1]):
            writer.commands.run("echo $RANDOM > /v/word; chmod 640 /v/word")
            assert reader.commands.run("cat /v/word").stdout == writer.commands.run("cat /v/word").stdout
            assert reader.commands.run("stat -c '%a %U' /v/word").stdout == "640 user\n"
            writer.commands.run("rm /v/word")
            assert reader.commands.run("ls /v").stdout == ""
    finally:
        for box in boxes:
            box.kill()


@pytest.mark.covers("S23")
def test_programs_run_from_a_volume_and_databases_work_on_it(volume: Volume, create: Create) -> None:
    box = create(volume_mounts={"/v": volume})
    box.commands.run("cp /bin/ls /v/tool && chmod +x /v/tool && /v/tool /v")
    code = "import sqlite3,mmap; c=sqlite3.connect('/v/db'); c.execute('create table t(x)'); c.commit(); c.close()"
    box.commands.run(f'python3 -c "{code}"')
    code = "import mmap; f=open('/v/m','w+b'); f.truncate(4096); m=mmap.mmap(f.fileno(),4096); m[:4]=b'mmap'; m.flush()"
    box.commands.run(f'python3 -c "{code}"')
    assert volume.read_file("/m", format="bytes")[:4] == b"mmap"


@pytest.mark.covers("S23")
@pytest.mark.parametrize("how", ["name:ro", "readOnly"])
def test_a_read_only_mount_cannot_be_written(
    server: LocalServer, on_runtime: dict[str, Any], volume: Volume, how: str
) -> None:
    volume.write_file("/a", "kept")
    said = {"name": f"{volume.name}:ro"} if how == "name:ro" else {"name": volume.name, "readOnly": True}
    body = {"templateID": "base", "volumeMounts": [{"path": "/v", **said}]}
    headers = {"X-API-KEY": server.api_key, **on_runtime["api_headers"]}
    made = httpx.post(f"{server.api_url}/v2/sandboxes", json=body, headers=headers, timeout=60).json()
    with Sandbox.connect(made["sandboxID"]) as box:
        assert box.commands.run("cat /v/a").stdout == "kept"
        tries = "echo x > /v/b; rm -f /v/a; chmod 777 /v/a; mount -o remount,rw /v; echo y >> /v/a; ls -A /v; cat /v/a"
        assert box.commands.run(tries, user="root").stdout == "a\nkept"
        detail = httpx.get(f"{server.api_url}/sandboxes/{box.sandbox_id}", headers=headers).json()
        assert detail["volumeMounts"] == [{"name": volume.name, "path": "/v", "readOnly": True}]


@pytest.mark.covers("S23")
def test_mounts_are_shown_and_what_cannot_be_mounted_is_refused(volume: Volume, create: Create) -> None:
    box = create(volume_mounts={"/v": volume.name})
    assert box.get_info().volume_mounts == [{"name": volume.name, "path": "/v"}]
    for path in ("v", "/", "/v/", "/v/../w", "/proc/x", "/dev", "/.warren", "//v", "/v\0"):
        with pytest.raises(SandboxException, match="400"):
            create(volume_mounts={path: volume})
    with pytest.raises(SandboxException, match="no such volume"):
        create(volume_mounts={"/v": "nothing"})
    with pytest.raises(SandboxException, match="another volume"):
        create(volume_mounts={"/v": volume, "/v/inside": volume})


@pytest.mark.covers("V01")
def test_a_volume_in_use_is_kept_and_the_sandboxes_named(volume: Volume, create: Create) -> None:
    box = create(volume_mounts={"/v": volume})
    with pytest.raises(VolumeException, match=f"409.*{box.sandbox_id}"):
        Volume.destroy(volume.volume_id)
    box.pause(keep_memory=False)
    with pytest.raises(VolumeException, match=f"409.*{box.sandbox_id}"):
        Volume.destroy(volume.volume_id)
    box.kill()
    assert Volume.destroy(volume.volume_id) is True


@pytest.mark.covers("V02", "S23")
def test_a_full_volume_says_so_inside_and_outside(small: Volume, create: Create) -> None:
    box = create(volume_mounts={"/v": small})
    size = int(box.commands.run("df -B1 --output=size /v | tail -1").stdout)
    assert size <= 16 * MIB
    full = box.commands.run("head -c 20M /dev/zero > /v/fill || echo refused; rm -f /v/fill", user="root")
    assert full.stdout == "refused\n"
    assert "No space left" in full.stderr
    small.write_file("/kept", "kept")
    with pytest.raises(VolumeException, match="507"):
        small.write_file("/large", io.BytesIO(b"x" * 20 * MIB))
    assert [entry.path for entry in small.list("/")] == ["/kept"]
    small.write_file("/fits", b"x" * 2 * MIB)


@pytest.mark.covers("S23")
def test_a_volume_can_be_watched(volume: Volume, create: Create) -> None:
    box = create(volume_mounts={"/v": volume})
    watch = box.files.watch_dir("/v")
    box.files.write("/v/seen", "x")
    assert "seen" in {event.name for event in watch.get_new_events()}
    watch.stop()


@pytest.mark.covers("S23")
@pytest.mark.parametrize("memory", [True, False])
def test_a_paused_sandbox_wakes_up_with_its_volumes(volume: Volume, create: Create, runtime: str, memory: bool) -> None:
    if memory and runtime == "crun":
        pytest.skip("crun keeps no memory")
    box = create(volume_mounts={"/v": volume})
    box.commands.run("echo before > /v/a")
    writer = box.commands.run("exec 3>>/v/log; while :; do echo x >&3; sleep 0.1; done", background=True)
    box.pause(keep_memory=memory)
    volume.write_file("/meanwhile", "changed")
    volume.write_file("/a", "after, and longer")
    box.connect()
    assert box.commands.run("cat /v/a /v/meanwhile").stdout == "after, and longerchanged"
    if memory:
        lines = volume.get_info("/log").size
        box.commands.run(f"timeout 20 bash -c 'until [ $(stat -c %s /v/log) -gt {lines} ]; do sleep 0.1; done'")
        writer.kill()
    box.commands.run("echo again > /v/b")
    assert volume.read_file("/b") == "again\n"


@pytest.mark.covers("S23", "S19", "S20")
def test_copies_have_the_volumes_of_their_source(volume: Volume, create: Create) -> None:
    box = create(volume_mounts={"/v": volume})
    box.commands.run("echo shared > /v/a")
    snapshot = box.create_snapshot()
    try:
        copies = [*box.fork(count=2), Sandbox.create(snapshot.snapshot_id)]
        for number, copy in enumerate(copies):
            with copy:
                assert copy.commands.run("cat /v/a").stdout == "shared\n"
                copy.commands.run(f"echo {number} > /v/copy-{number}")
                assert copy.get_info().volume_mounts == [{"name": volume.name, "path": "/v"}]
        assert box.commands.run("ls /v").stdout == "a\ncopy-0\ncopy-1\ncopy-2\n"
    finally:
        Sandbox.delete_snapshot(snapshot.snapshot_id)


def test_volumes_outlive_the_server_and_a_crash_during_a_write_loses_nothing(
    server: LocalServer, volume: Volume, create: Create
) -> None:
    box = create(volume_mounts={"/v": volume})
    acknowledged: dict[str, bytes] = {}

    def killing() -> Iterator[bytes]:
        for number in range(64):
            if number == 20:
                server.kill()
            yield b"y" * MIB

    for number in range(5):
        acknowledged[f"/f{number}"] = os.urandom(2 * MIB)
        volume.write_file(f"/f{number}", acknowledged[f"/f{number}"])
    with pytest.raises(httpx.HTTPError):
        httpx.put(
            f"{server.api_url}/volumecontent/{volume.volume_id}/file",
            params={"path": "/f0"},
            headers={"Authorization": f"Bearer {volume.token}"},
            content=killing(),
            timeout=60,
        )
    box_still = server.placement(box.sandbox_id)
    server.start()
    assert server.placement(box.sandbox_id)["pid"] == box_still["pid"]
    assert {entry.path for entry in volume.list("/")} == set(acknowledged)
    for path, content in acknowledged.items():
        assert volume.read_file(path, format="bytes") == content
        assert box.files.read(f"/v{path}", format="bytes") == content
    box.commands.run("echo on > /v/goes")
    assert volume.read_file("/goes") == "on\n"
