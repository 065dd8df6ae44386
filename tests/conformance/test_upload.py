"""Contract 3.5, 6.2.4: POST /files, every form of it."""

from __future__ import annotations

import gzip
import io
import os
from typing import TYPE_CHECKING

import pytest
from e2b import AsyncSandbox, AuthenticationException, FileType, InvalidArgumentException, Sandbox
from e2b.sandbox.filesystem.filesystem import WriteEntry

from .wire import Wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    import httpx

OCTETS = {"Content-Type": "application/octet-stream"}


def put(wire: Wire, path: object, content: bytes, **headers: str) -> httpx.Response:
    sent = {**OCTETS, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return wire.files("POST", params={"path": str(path)}, content=content, headers=sent)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("octets", [False, True])
def test_answer_is_a_list_with_path_name_and_type(wire: Wire, folder: Path, octets: bool) -> None:
    path = f"{folder}/näme"
    if octets:
        response = put(wire, path, b"content")
    else:
        response = wire.files("POST", params={"path": path}, files=[("file", ("other", b"content"))])
    assert response.status_code == 200
    assert response.json() == [{"path": path, "name": "näme", "type": "file"}]
    assert (folder / "näme").read_bytes() == b"content"


def test_answer_says_that_it_is_json(wire: Wire, folder: Path) -> None:
    assert put(wire, folder / "f", b"").headers["Content-Type"].startswith("application/json")


def test_client_writes_every_kind_of_data(sandbox: Sandbox, folder: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield from (b"a" * 70_000, b"", b"b" * 70_000)

    path = f"{folder}/f"
    kinds = [
        ("text ü", "text ü".encode()),
        (b"\0bytes\xff", b"\0bytes\xff"),
        (io.BytesIO(b"io"), b"io"),
        (io.StringIO("text io ü"), "text io ü".encode()),
        (chunks(), b"a" * 70_000 + b"b" * 70_000),
    ]
    for data, expected in kinds:
        info = sandbox.files.write(path, data)
        assert (info.path, info.name, info.type) == (path, "f", FileType.FILE)
        assert (folder / "f").read_bytes() == expected


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("octets", [None, True])
def test_client_forms_all_arrive(sandbox: Sandbox, folder: Path, octets: bool | None, gzipped: bool) -> None:
    content = os.urandom(1_000_003)
    sandbox.files.write(f"{folder}/f", content, gzip=gzipped, use_octet_stream=octets)
    assert (folder / "f").read_bytes() == content


def test_many_files_in_one_request_keep_their_order(sandbox: Sandbox, folder: Path) -> None:
    entries = [WriteEntry(path=f"{folder}/d{i}/ü {i}", data=f"content {i}") for i in range(20)]
    assert [info.path for info in sandbox.files.write_files(entries)] == [entry["path"] for entry in entries]
    assert (folder / "d7/ü 7").read_text() == "content 7"


def test_part_file_name_is_the_destination_without_a_path(wire: Wire) -> None:
    response = wire.files("POST", files=[("file", ("sub dir/ü.txt", b"x"))])
    assert response.json()[0]["path"] == str(wire.daemon.home("user") / "sub dir/ü.txt")


def test_parts_of_another_name_are_not_files(wire: Wire, folder: Path) -> None:
    files = [("note", (f"{folder}/no", b"x")), ("file", (f"{folder}/yes", b"x"))]
    response = wire.files("POST", files=files)
    assert response.status_code in (200, 400)
    assert not (folder / "no").exists()


def test_same_target_twice_is_400(wire: Wire, folder: Path) -> None:
    files = [("file", (f"{folder}/f", b"1")), ("file", (f"{folder}/./f", b"2"))]
    response = wire.files("POST", files=files)
    assert (response.status_code, response.json()["code"]) == (400, 400)


def test_new_file_is_0644_and_belongs_to_the_user_like_its_parents(sandbox: Sandbox, folder: Path) -> None:
    sandbox.files.write(f"{folder}/a/b/f", "x")
    for name, mode in (("a", 0o755), ("a/b", 0o755), ("a/b/f", 0o644)):
        found = (folder / name).stat()
        assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (mode, 1000, 1000)
    sandbox.files.write(f"{folder}/of-root", "x", user="root")
    assert (folder / "of-root").stat().st_uid == 0


def test_overwritten_file_keeps_its_mode(sandbox: Sandbox, folder: Path) -> None:
    (folder / "tool").write_text("old content that is longer")
    (folder / "tool").chmod(0o4751)
    sandbox.files.write(f"{folder}/tool", "new")
    assert (folder / "tool").read_text() == "new"
    assert (folder / "tool").stat().st_mode & 0o777 == 0o751
    assert names(folder) == ["tool"]


def test_paths_expand_as_everywhere(sandbox: Sandbox) -> None:
    home = sandbox.files.get_info("~").path
    assert sandbox.files.write("relative", "x").path == f"{home}/relative"
    assert sandbox.files.write("~/tilde", "x").path == f"{home}/tilde"
    assert sandbox.files.read("~/tilde") == "x"


def test_directory_target_is_400(wire: Wire, sandbox: Sandbox, folder: Path) -> None:
    assert put(wire, folder, b"x").status_code == 400
    with pytest.raises(InvalidArgumentException):
        sandbox.files.write(str(folder), "x")
    assert names(folder) == []


def test_path_through_a_file_is_an_error(wire: Wire, folder: Path) -> None:
    (folder / "f").touch()
    response = put(wire, folder / "f/below", b"x")
    assert 400 <= response.status_code < 600
    assert response.json()["code"] == response.status_code


def test_octets_without_a_path_are_400(wire: Wire) -> None:
    response = wire.files("POST", content=b"x", headers=OCTETS)
    assert (response.status_code, response.json()["code"]) == (400, 400)


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "application/x-www-form-urlencoded", ""])
def test_other_content_types_are_400(wire: Wire, folder: Path, kind: str) -> None:
    response = wire.files("POST", params={"path": f"{folder}/f"}, content=b"x", headers={"Content-Type": kind})
    assert (response.status_code, response.json()["code"]) == (400, 400)
    assert names(folder) == []


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed"])
def test_multipart_without_a_boundary_is_400(wire: Wire, folder: Path, kind: str) -> None:
    response = wire.files("POST", params={"path": f"{folder}/f"}, content=b"x", headers={"Content-Type": kind})
    assert (response.status_code, response.json()["code"]) == (400, 400)


def test_multipart_without_any_file_is_an_error_or_an_empty_answer(wire: Wire, folder: Path) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    response = wire.files("POST", params={"path": f"{folder}/f"}, content=b"--b--\r\n", headers=headers)
    assert response.status_code == 400 or response.json() == []
    assert names(folder) == []


def test_gzip_covers_the_whole_body(wire: Wire, folder: Path) -> None:
    content = b"squeezed " * 100_000
    assert put(wire, folder / "f", gzip.compress(content), Content_Encoding="gzip").status_code == 200
    assert (folder / "f").read_bytes() == content


def test_gzip_works_on_multipart_too(wire: Wire, folder: Path) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nhello\r\n--b--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=b", "Content-Encoding": "gzip"}
    response = wire.files("POST", params={"path": f"{folder}/f"}, content=gzip.compress(body), headers=headers)
    assert response.status_code == 200
    assert (folder / "f").read_bytes() == b"hello"


@pytest.mark.parametrize(
    ("encoding", "body"), [("br", b"x"), ("gzip", b"no gzip"), ("gzip", gzip.compress(b"x", mtime=0)[:-6])]
)
def test_unknown_and_broken_encodings_are_400(wire: Wire, folder: Path, encoding: str, body: bytes) -> None:
    response = put(wire, folder / "f", body, Content_Encoding=encoding)
    assert (response.status_code, response.json()["code"]) == (400, 400)
    assert names(folder) == []


def test_content_that_looks_like_the_boundary_arrives_whole(wire: Wire, folder: Path) -> None:
    content = b"\r\n--bX\r\n--\r\n--b\n\r\r\n--" * 1000
    body = (
        b'--bound\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n' + content + b"\r\n--bound--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=bound"}
    assert wire.files("POST", params={"path": f"{folder}/f"}, content=body, headers=headers).status_code == 200
    assert (folder / "f").read_bytes() == content


def test_unknown_user_is_401(wire: Wire, sandbox: Sandbox, folder: Path) -> None:
    params = {"path": f"{folder}/f", "username": "ghost"}
    response = wire.files("POST", params=params, content=b"x", headers=OCTETS)
    assert response.json() == {"code": 401, "message": "invalid username: 'ghost'"}
    with pytest.raises(AuthenticationException):
        sandbox.files.write(f"{folder}/f", "x", user="ghost")


def test_link_to_a_file_is_written_through(sandbox: Sandbox, folder: Path) -> None:
    (folder / "real").write_text("old")
    (folder / "real").chmod(0o600)
    (folder / "link").symlink_to("real")
    sandbox.files.write(f"{folder}/link", "new")
    assert os.readlink(folder / "link") == "real"
    assert (folder / "real").read_text() == "new"
    assert (folder / "real").stat().st_mode & 0o777 == 0o600


def test_link_to_nothing_yet_makes_its_target(sandbox: Sandbox, folder: Path) -> None:
    (folder / "link").symlink_to("later")
    sandbox.files.write(f"{folder}/link", "new")
    assert (folder / "later").read_text() == "new"
    assert (folder / "link").is_symlink()


def test_devices_and_proc_files_are_written_in_place(wire: Wire) -> None:
    before = os.stat("/dev/null")
    assert put(wire, "/dev/null", b"x" * 100_000).status_code == 200
    assert os.stat("/dev/null").st_rdev == before.st_rdev
    path = f"/proc/{wire.daemon.pid}/coredump_filter"
    assert put(wire, path, b"0x33\n").status_code == 200


def test_fifo_without_a_reader_does_not_hang(wire: Wire, folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    response = put(wire, folder / "fifo", b"x")
    assert response.json()["code"] == response.status_code >= 400
    assert names(folder) == ["fifo"]


def test_empty_file_is_made(sandbox: Sandbox, folder: Path) -> None:
    sandbox.files.write(f"{folder}/a", "")
    sandbox.files.write(f"{folder}/b", b"", use_octet_stream=True)
    assert [path.stat().st_size for path in folder.iterdir()] == [0, 0]


@pytest.mark.anyio
async def test_async_client_writes(async_sandbox: Callable[[], AsyncSandbox], folder: Path) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * 100_000

    files = async_sandbox().files
    await files.write(f"{folder}/f", chunks())
    assert (folder / "f").stat().st_size == 1_000_000
    entries = [WriteEntry(path=f"{folder}/{i}", data=str(i)) for i in range(5)]
    assert [info.name for info in await files.write_files(entries)] == list("01234")
    await files.write(f"{folder}/z", "zipped", gzip=True)
    assert (folder / "z").read_text() == "zipped"
