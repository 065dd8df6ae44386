"""Contract 3.5, 6.2.4: GET and HEAD /files."""

from __future__ import annotations

import gzip
import os
import re
import uuid
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from e2b import AsyncSandbox, AuthenticationException, FileNotFoundException, InvalidArgumentException, Sandbox

from .processes import eventually
from .wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

TEXT = "line of text that repeats itself\n" * 20_000
BIG = 256 << 20
ROOM = 40 << 20  # bytes that guestd may need for any one transfer


@pytest.fixture
def ten(folder: Path) -> Path:
    path = folder / "ten"
    path.write_bytes(b"0123456789")
    return path


def get(wire: Wire, path: object, **headers: str) -> httpx.Response:
    sent = {"Accept-Encoding": "identity", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return wire.files("GET", params={"path": str(path)}, headers=sent)


def test_body_and_headers(wire: Wire, ten: Path) -> None:
    response = get(wire, ten)
    assert (response.status_code, response.content) == (200, b"0123456789")
    assert response.headers["Content-Length"] == "10"
    assert response.headers["Content-Disposition"].startswith("inline")
    assert "ten" in response.headers["Content-Disposition"]
    assert "Accept-Encoding" in response.headers["Vary"]
    modified = parsedate_to_datetime(response.headers["Last-Modified"]).timestamp()
    assert abs(modified - ten.stat().st_mtime) < 2


def test_utf8_names_are_disposed_safely(wire: Wire, folder: Path) -> None:
    (folder / 'ü"\\; x.txt').write_bytes(b"x")
    disposition = get(wire, folder / 'ü"\\; x.txt').headers["Content-Disposition"]
    assert disposition.startswith("inline")
    assert "\n" not in disposition
    assert "filename*=utf-8''" in disposition.lower()


def test_client_reads_text_bytes_and_stream(sandbox: Sandbox, folder: Path) -> None:
    (folder / "f").write_text(TEXT)
    assert sandbox.files.read(f"{folder}/f") == TEXT
    assert sandbox.files.read(f"{folder}/f", format="bytes") == TEXT.encode()
    assert b"".join(sandbox.files.read(f"{folder}/f", format="stream")) == TEXT.encode()
    assert sandbox.files.read(f"{folder}/f", gzip=True) == TEXT


def test_binary_content_is_unchanged(sandbox: Sandbox, folder: Path) -> None:
    content = os.urandom(3_000_001)
    (folder / "f").write_bytes(content)
    assert bytes(sandbox.files.read(f"{folder}/f", format="bytes")) == content
    assert bytes(sandbox.files.read(f"{folder}/f", format="bytes", gzip=True)) == content


def test_empty_file(sandbox: Sandbox, folder: Path) -> None:
    (folder / "f").touch()
    assert sandbox.files.read(f"{folder}/f") == ""


@pytest.mark.parametrize("encoding", ["identity", "gzip", "gzip, deflate"])
def test_proc_files_are_read_to_their_end(wire: Wire, encoding: str) -> None:
    path = "/proc/sys/kernel/random/boot_id"
    response = get(wire, path, Accept_Encoding=encoding)
    assert response.text == Path(path).read_text()
    assert uuid.UUID(response.text.strip())


def test_proc_files_longer_than_a_page(wire: Wire) -> None:
    assert len(get(wire, "/proc/kallsyms").content) > 100_000


def test_gzip_is_used_where_it_pays(wire: Wire, folder: Path) -> None:
    (folder / "text").write_text(TEXT)
    with wire.http.stream(
        "GET", "/files", params={"path": f"{folder}/text"}, headers=wire.headers({"Accept-Encoding": "gzip, deflate"})
    ) as response:
        raw = b"".join(response.iter_raw())
        encoding = response.headers.get("Content-Encoding", "identity")
    assert (gzip.decompress(raw) if encoding == "gzip" else raw) == TEXT.encode()
    assert encoding == "identity" or len(raw) < len(TEXT) // 5
    assert "Accept-Encoding" in response.headers["Vary"]


def test_gzip_is_not_used_where_it_does_not_shrink(wire: Wire, folder: Path) -> None:
    (folder / "noise").write_bytes(os.urandom(1 << 20))
    assert "Content-Encoding" not in get(wire, folder / "noise", Accept_Encoding="gzip").headers


def test_gzip_is_never_sent_to_those_who_refuse_it(wire: Wire, folder: Path) -> None:
    (folder / "text").write_text(TEXT)
    for accept in ("identity", "gzip;q=0", "br", "*;q=0.1, gzip;q=0"):
        assert "Content-Encoding" not in get(wire, folder / "text", Accept_Encoding=accept).headers


@pytest.mark.parametrize("accept", ["br, identity;q=0", "identity;q=0, gzip;q=0", "*;q=0"])
def test_no_acceptable_encoding_is_406(wire: Wire, ten: Path, accept: str) -> None:
    response = get(wire, ten, Accept_Encoding=accept)
    assert (response.status_code, response.json()["code"]) == (406, 406)


@pytest.mark.parametrize(
    ("asked", "body", "range_"),
    [("bytes=2-4", b"234", "bytes 2-4/10"), ("bytes=7-", b"789", "bytes 7-9/10"), ("bytes=-2", b"89", "bytes 8-9/10")],
)
def test_range_is_206_and_never_compressed(wire: Wire, ten: Path, asked: str, body: bytes, range_: str) -> None:
    response = get(wire, ten, Range=asked, Accept_Encoding="gzip, deflate")
    assert (response.status_code, response.content) == (206, body)
    assert response.headers["Content-Range"] == range_
    assert "Content-Encoding" not in response.headers


def test_range_outside_is_416_with_the_size(wire: Wire, ten: Path) -> None:
    response = get(wire, ten, Range="bytes=100-")
    assert response.status_code == 416
    assert response.headers["Content-Range"] == "bytes */10"


def test_conditions_on_the_date(wire: Wire, ten: Path) -> None:
    date = get(wire, ten).headers["Last-Modified"]
    assert get(wire, ten, If_Modified_Since=date).status_code == 304
    assert get(wire, ten, If_Modified_Since="Mon, 01 Jan 2001 00:00:00 GMT").status_code == 200
    assert get(wire, ten, If_Unmodified_Since="Mon, 01 Jan 2001 00:00:00 GMT").status_code == 412


def test_etag_tells_versions_apart(wire: Wire, ten: Path) -> None:
    tag = get(wire, ten).headers["ETag"]
    assert re.fullmatch(r'(W/)?"[^"]+"', tag)
    assert get(wire, ten, If_None_Match=tag).status_code == 304
    ten.write_bytes(b"9876543210")
    os.utime(ten, (1, 1))
    assert get(wire, ten).headers["ETag"] != tag
    assert get(wire, ten, If_None_Match=tag).content == b"9876543210"


def test_if_range_with_an_old_etag_sends_the_whole(wire: Wire, ten: Path) -> None:
    assert get(wire, ten, Range="bytes=0-1", If_Range='"other"').status_code == 200


def test_head_has_the_headers_and_no_body(wire: Wire, ten: Path) -> None:
    response = wire.files("HEAD", params={"path": str(ten)}, headers={"Accept-Encoding": "identity"})
    assert (response.status_code, response.content, response.headers["Content-Length"]) == (200, b"", "10")
    assert response.headers["ETag"] == get(wire, ten).headers["ETag"]
    assert wire.files("HEAD", params={"path": f"{ten}x"}).status_code == 404


def test_missing_is_404_with_the_path(wire: Wire, sandbox: Sandbox, folder: Path) -> None:
    response = get(wire, folder / "none")
    assert response.status_code == 404
    assert response.json() == {"code": 404, "message": f"path '{folder}/none' does not exist"}
    with pytest.raises(FileNotFoundException):
        sandbox.files.read(f"{folder}/none")


def test_directory_is_400(wire: Wire, sandbox: Sandbox, folder: Path) -> None:
    response = get(wire, folder)
    assert (response.status_code, response.json()["code"]) == (400, 400)
    with pytest.raises(InvalidArgumentException):
        sandbox.files.read(str(folder))


def test_unknown_user_is_401(wire: Wire, sandbox: Sandbox, ten: Path) -> None:
    response = wire.files("GET", params={"path": str(ten), "username": "ghost"})
    assert response.status_code == 401
    assert response.json() == {"code": 401, "message": "invalid username: 'ghost'"}
    with pytest.raises(AuthenticationException):
        sandbox.files.read(str(ten), user="ghost")


def test_user_is_the_query_and_not_the_basic_header(wire: Wire, sandbox: Sandbox) -> None:
    (wire.daemon.home("root") / "whose").write_text("root's")
    (wire.daemon.home("user") / "whose").write_text("user's")
    assert wire.files("GET", params={"path": "whose"}, headers={"Authorization": "Basic cm9vdDo="}).text == "user's"
    assert sandbox.files.read("whose", user="root") == "root's"
    assert sandbox.files.read("~/whose") == "user's"


def test_links_are_followed(sandbox: Sandbox, ten: Path) -> None:
    (ten.parent / "link").symlink_to("ten")
    assert sandbox.files.read(f"{ten.parent}/link") == "0123456789"


def test_link_loops_and_paths_through_files_are_errors(wire: Wire, ten: Path) -> None:
    (ten.parent / "a").symlink_to("a")
    assert 400 <= get(wire, ten.parent / "a").status_code < 600
    assert get(wire, f"{ten}/below").status_code in (400, 404)


def test_fifo_without_a_writer_does_not_hang(wire: Wire, folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    assert get(wire, folder / "fifo").status_code < 600
    assert wire.http.get("/health").status_code == 204


def test_null_device_is_empty(wire: Wire) -> None:
    response = get(wire, "/dev/null")
    assert response.status_code in (200, 400)
    assert response.status_code == 400 or response.content == b""


@pytest.mark.timeout(120)
def test_big_file_passes_in_bounded_memory(wire: Wire, folder: Path) -> None:
    with (folder / "big").open("wb") as sparse:
        sparse.truncate(BIG)
    wire.daemon.reset_peak()
    with wire.http.stream(
        "GET", "/files", params={"path": f"{folder}/big"}, headers=wire.headers({"Accept-Encoding": "identity"})
    ) as response:
        assert sum(len(chunk) for chunk in response.iter_raw()) == BIG
    assert wire.daemon.growth() < ROOM


def test_client_that_leaves_frees_the_file(wire: Wire, folder: Path) -> None:
    with (folder / "big").open("wb") as sparse:
        sparse.truncate(BIG)
    with wire.http.stream("GET", "/files", params={"path": f"{folder}/big"}, headers=wire.headers({})) as response:
        next(response.iter_raw())
    open_files = Path(f"/proc/{wire.daemon.pid}/fd")

    def freed() -> bool:
        return not any("big" in link for link in targets(open_files))

    eventually(freed, "the file was closed")


def targets(open_files: Path) -> list[str]:
    found: list[str] = []
    for entry in list(open_files.iterdir()):
        try:
            found.append(os.readlink(entry))
        except FileNotFoundError:
            continue
    return found


@pytest.mark.anyio
async def test_async_client_reads(async_sandbox: Callable[[], AsyncSandbox], folder: Path) -> None:
    files = async_sandbox().files
    (folder / "f").write_text(TEXT)
    assert await files.read(f"{folder}/f") == TEXT
    chunks = [chunk async for chunk in await files.read(f"{folder}/f", format="stream")]
    assert b"".join(chunks) == TEXT.encode()
