"""Bytes into a sandbox and out of it."""

import hashlib
import io
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from e2b import (
    AsyncSandbox,
    AuthenticationException,
    FileNotFoundException,
    FileType,
    InvalidArgumentException,
    NotEnoughSpaceException,
    Sandbox,
)
from e2b.sandbox.filesystem.filesystem import WriteEntry

from tests.e2e.local_server import LocalServer

MIB = 1024 * 1024
TEXT = "první řádek\nsecond line — 🦡\n"
FORMS: list[dict[str, Any]] = [
    {},
    {"use_octet_stream": True},
    {"gzip": True},
]
"""Multipart, octet-stream, and a compressed octet-stream."""


@pytest.fixture
def folder(box: Sandbox) -> Iterator[str]:
    path = f"/tmp/files-{secrets.token_hex(4)}"
    box.files.make_dir(path)
    yield path
    box.files.remove(path)


@pytest.mark.covers("F01", "F02")
@pytest.mark.parametrize("form", FORMS, ids=["multipart", "octets", "gzip"])
def test_text_and_bytes_come_back_as_they_went(form: dict[str, Any], box: Sandbox, folder: str) -> None:
    everything = bytes(range(256)) * 300
    written = box.files.write(f"{folder}/text", TEXT, **form)
    assert (written.name, written.path, written.type) == ("text", f"{folder}/text", FileType.FILE)
    assert box.files.read(f"{folder}/text") == TEXT
    box.files.write(f"{folder}/bytes", everything, **form)
    assert bytes(box.files.read(f"{folder}/bytes", format="bytes")) == everything
    assert bytes(box.files.read(f"{folder}/bytes", format="bytes", gzip=True)) == everything


@pytest.mark.covers("F01", "F02")
@pytest.mark.parametrize("form", FORMS, ids=["multipart", "octets", "gzip"])
def test_an_empty_file_is_a_file(form: dict[str, Any], box: Sandbox, folder: str) -> None:
    box.files.write(f"{folder}/empty", b"", **form)
    assert box.files.read(f"{folder}/empty") == ""
    assert box.files.get_info(f"{folder}/empty").size == 0


@pytest.mark.covers("F02")
def test_files_and_iterators_can_be_written(box: Sandbox, folder: str) -> None:
    box.files.write(f"{folder}/from-io", io.BytesIO(b"from a file object"))
    assert box.files.read(f"{folder}/from-io") == "from a file object"
    box.files.write(f"{folder}/from-iterator", (b"x" * 1000 for _ in range(100)))
    assert box.files.get_info(f"{folder}/from-iterator").size == 100_000


@pytest.mark.covers("F01", "F02")
@pytest.mark.parametrize("form", FORMS[:2], ids=["multipart", "octets"])
def test_large_files_arrive_whole(form: dict[str, Any], box: Sandbox, folder: str) -> None:
    data = secrets.token_bytes(24 * MIB)
    box.files.write(f"{folder}/large", data, **form)
    digest = box.commands.run(f"sha256sum {folder}/large").stdout.split()[0]
    assert digest == hashlib.sha256(data).hexdigest()
    streamed = hashlib.sha256()
    with box.files.read(f"{folder}/large", format="stream") as chunks:
        for chunk in chunks:
            streamed.update(chunk)
    assert streamed.hexdigest() == digest


@pytest.mark.covers("F01")
def test_files_of_the_kernel_are_read_to_their_end(box: Sandbox) -> None:
    boot_id = "/proc/sys/kernel/random/boot_id"
    assert box.files.read(boot_id) == box.commands.run(f"cat {boot_id}").stdout
    assert len(box.files.read(boot_id).strip()) == 36


@pytest.mark.covers("F01", "C07")
def test_reading_what_is_not_a_file_fails(box: Sandbox, folder: str) -> None:
    with pytest.raises(FileNotFoundException):
        box.files.read(f"{folder}/missing")
    with pytest.raises(InvalidArgumentException):
        box.files.read(folder)


@pytest.mark.covers("F02", "C07")
def test_a_directory_cannot_be_written_to(box: Sandbox, folder: str) -> None:
    with pytest.raises(InvalidArgumentException):
        box.files.write(folder, "text")


@pytest.mark.covers("F03")
@pytest.mark.parametrize("form", FORMS[:2], ids=["multipart", "octets"])
def test_many_files_are_written_at_once_in_order(form: dict[str, Any], box: Sandbox, folder: str) -> None:
    entries = [WriteEntry(path=f"{folder}/many/{index}/file", data=f"content {index}") for index in range(5)]
    written = box.files.write_files(entries, **form)
    assert [info.path for info in written] == [entry["path"] for entry in entries]
    assert [box.files.read(entry["path"]) for entry in entries] == [entry["data"] for entry in entries]
    assert box.files.write_files([]) == []


@pytest.mark.covers("F03")
def test_parents_are_made_and_belong_to_the_user(box: Sandbox) -> None:
    box.files.write("made/for/me/file", "x")
    for path in ("made", "made/for", "made/for/me"):
        info = box.files.get_info(path)
        assert (info.owner, info.group, info.permissions) == ("user", "user", "drwxr-xr-x")
    assert box.files.get_info("made/for/me/file").permissions == "-rw-r--r--"
    box.files.remove("made")


@pytest.mark.covers("F03")
def test_overwriting_replaces_the_content_and_keeps_the_mode(box: Sandbox, folder: str) -> None:
    box.files.write(f"{folder}/script", "echo a long first version\n")
    box.commands.run(f"chmod 750 {folder}/script")
    box.files.write(f"{folder}/script", "short\n")
    assert box.files.read(f"{folder}/script") == "short\n"
    assert box.files.get_info(f"{folder}/script").permissions == "-rwxr-x---"


@pytest.mark.covers("F04")
@pytest.mark.parametrize("form", FORMS, ids=["multipart", "octets", "gzip"])
def test_metadata_is_kept_with_the_file(form: dict[str, Any], box: Sandbox, folder: str) -> None:
    metadata = {"author": "someone", "kind": "a test; with = signs"}
    assert box.files.write(f"{folder}/noted", "x", metadata=metadata, **form).metadata == metadata
    assert box.files.get_info(f"{folder}/noted").metadata == metadata
    assert box.files.list(folder)[0].metadata == metadata
    assert box.files.rename(f"{folder}/noted", f"{folder}/renamed").metadata == metadata


@pytest.mark.covers("F04")
def test_new_metadata_replaces_all_of_the_old(box: Sandbox, folder: str) -> None:
    box.files.write(f"{folder}/noted", "x", metadata={"one": "1", "two": "2"})
    box.files.write(f"{folder}/noted", "x", metadata={"three": "3"})
    assert box.files.get_info(f"{folder}/noted").metadata == {"three": "3"}


@pytest.mark.covers("F04", "C07")
def test_metadata_has_a_size_limit(box: Sandbox, folder: str) -> None:
    with pytest.raises(InvalidArgumentException):
        box.files.write(f"{folder}/noted", "x", metadata={"long": "v" * 5000})


@pytest.mark.covers("F13")
def test_relative_paths_begin_at_the_users_home(box: Sandbox) -> None:
    for path in ("here.txt", "~/here.txt", "./here.txt", "sub/../here.txt"):
        assert box.files.write(path, path).path == "/home/user/here.txt"
        assert box.commands.run("cat /home/user/here.txt").stdout == path
    assert box.files.write("here.txt", "x", user="root").path == "/root/here.txt"
    box.files.remove("here.txt")
    box.files.remove("here.txt", user="root")


@pytest.mark.covers("F13")
def test_files_belong_to_the_user_who_writes_them(box: Sandbox, folder: str) -> None:
    box.files.write(f"{folder}/mine", "x")
    box.files.write(f"{folder}/roots", "x", user="root")
    assert box.files.get_info(f"{folder}/mine").owner == "user"
    assert box.files.get_info(f"{folder}/roots").owner == "root"


@pytest.mark.covers("F13", "C07")
def test_an_unknown_user_is_refused(box: Sandbox) -> None:
    with pytest.raises(AuthenticationException):
        box.files.write("/tmp/x", "x", user="nobody-here")
    with pytest.raises(AuthenticationException):
        box.files.read("/etc/hostname", user="nobody-here")
    with pytest.raises(AuthenticationException):
        box.files.list("/", user="nobody-here")


@pytest.mark.covers("F13", "C07")
@pytest.mark.threat("C3", "E5")
def test_a_full_disk_is_reported_as_such(server: LocalServer, runtime: str) -> None:
    created = httpx.post(
        f"{server.api_url}/v2/sandboxes",
        json={"templateID": "base", "timeout": 120, "diskMB": 64},
        headers={"X-API-KEY": server.api_key, "X-Warren-Runtime": runtime},
        timeout=60,
    )
    assert created.status_code == 201, created.text
    sandbox = Sandbox.connect(created.json()["sandboxID"])
    for form in FORMS[:2]:
        with pytest.raises(NotEnoughSpaceException):
            sandbox.files.write("/home/user/too-large", b"\x55" * (100 * MIB), **form)
        assert not sandbox.files.exists("/home/user/too-large")
    sandbox.files.write("/home/user/small", "still works")
    assert sandbox.kill()


@pytest.mark.anyio
@pytest.mark.covers("F01", "F02", "F03", "F04", "F13")
async def test_the_async_client_transfers_the_same(box: Sandbox, folder: str, tmp_path: Path) -> None:
    files = (await AsyncSandbox.connect(box.sandbox_id)).files
    for index, form in enumerate(FORMS):
        await files.write(f"{folder}/{index}", TEXT, metadata={"form": str(index)}, **form)
        assert await files.read(f"{folder}/{index}") == TEXT
        assert (await files.get_info(f"{folder}/{index}")).metadata == {"form": str(index)}
    data = secrets.token_bytes(3 * MIB)
    (tmp_path / "data").write_bytes(data)
    with (tmp_path / "data").open("rb") as source:
        await files.write(f"{folder}/large", source)
    assert bytes(await files.read(f"{folder}/large", format="bytes")) == data
    async with await files.read(f"{folder}/large", format="stream") as stream:
        assert b"".join([chunk async for chunk in stream]) == data
    written = await files.write_files(
        [WriteEntry(path=f"{folder}/a", data="A"), WriteEntry(path=f"{folder}/b", data=b"B")]
    )
    assert [info.name for info in written] == ["a", "b"]
    with pytest.raises(FileNotFoundException):
        await files.read(f"{folder}/missing")


@pytest.mark.covers("F01")
def test_a_stream_can_be_left_half_way(create: Callable[..., Sandbox], box: Sandbox, folder: str) -> None:
    box.files.write(f"{folder}/large", b"y" * (8 * MIB))
    stream = box.files.read(f"{folder}/large", format="stream")
    assert next(stream)
    stream.close()
    assert box.files.read("/etc/hostname")
