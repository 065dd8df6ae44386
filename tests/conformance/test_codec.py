"""Contract 3.1: how Connect looks on the wire, in JSON and in binary."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from e2b.envd.filesystem import filesystem_pb
from e2b.envd.process import process_pb

from .wire import COMPRESSED, DATA, END, Run, Wire, command, shell, unbase64

if TYPE_CHECKING:
    from pathlib import Path

START = "process.Process/Start"


def test_unary_json_is_bare_json_both_ways(wire: Wire) -> None:
    response = wire.call("process.Process/List", {})
    assert response.headers["Content-Type"] == "application/json"
    assert response.json() == {}


def test_json_omits_defaults_and_keeps_oneof_wrappers(wire: Wire) -> None:
    with wire.stream(START, command("/bin/echo", "hi", stdin=False)) as arriving:
        first, *middle, last, end = list(arriving)
    assert first.json == {"event": {"start": {"pid": first.event["start"]["pid"]}}}
    assert [frame.json for frame in middle] == [{"event": {"data": {"stdout": "aGkK"}}}]
    assert last.json == {"event": {"end": {"exited": True, "status": "exit status 0"}}}
    assert (end.flags, end.payload) == (END, b"{}")


def test_int64_is_text_enums_are_names_timestamps_are_rfc3339(wire: Wire, folder: Path) -> None:
    (folder / "five").write_bytes(b"12345")
    entry = wire.ok("filesystem.Filesystem/Stat", {"path": f"{folder}/five"})["entry"]
    assert entry["size"] == "5"
    assert entry["type"] == "FILE_TYPE_FILE"
    modified = datetime.fromisoformat(entry["modifiedTime"])
    assert entry["modifiedTime"].endswith("Z")
    assert abs(modified - datetime.now(UTC)) < timedelta(minutes=1)


def test_empty_file_has_no_size_field(wire: Wire, folder: Path) -> None:
    (folder / "empty").touch()
    assert "size" not in wire.ok("filesystem.Filesystem/Stat", {"path": f"{folder}/empty"})["entry"]


def test_unknown_json_fields_are_ignored(wire: Wire) -> None:
    assert wire.ok("filesystem.Filesystem/Stat", {"path": "/", "fromTheFuture": {"a": [1]}})["entry"]["path"] == "/"


def test_snake_case_names_are_accepted_too(wire: Wire, folder: Path) -> None:
    made = wire.ok("filesystem.Filesystem/CreateWatcher", {"path": str(folder), "include_entry": True})
    wire.ok("filesystem.Filesystem/RemoveWatcher", {"watcher_id": made["watcherId"]})


def test_protocol_version_header_is_not_needed(wire: Wire) -> None:
    headers = {"X-Access-Token": wire.daemon.token or ""}
    assert wire.http.post("/process.Process/List", json={}, headers=headers).status_code == 200


def test_stream_errors_arrive_in_the_end_frame_of_a_200(wire: Wire) -> None:
    with wire.stream(START, shell("true", cwd="/does/not/exist")) as arriving:
        (frame,) = list(arriving)
    assert frame.flags == END
    assert frame.json["error"]["code"] == "invalid_argument"
    assert "does not exist" in frame.json["error"]["message"]


@pytest.mark.parametrize("offer", ["gzip", "br, gzip, zstd"])
def test_streams_are_never_compressed(wire: Wire, offer: str) -> None:
    body = shell("head -c 200000 /dev/zero")
    with wire.stream(START, body, Accept_Encoding=offer, Connect_Accept_Encoding="gzip") as arriving:
        arrived = list(arriving)
    assert not any(frame.flags & COMPRESSED for frame in arrived)
    assert {frame.flags for frame in arrived} == {DATA, END}
    assert len(Run.of(arrived).stdout) == 200_000


def test_http_status_follows_the_connect_code(wire: Wire, folder: Path) -> None:
    (folder / "file").touch()
    service = "filesystem.Filesystem"
    assert wire.refused(f"{service}/Stat", {"path": f"{folder}/none"})[:2] == (404, "not_found")
    assert wire.refused(f"{service}/MakeDir", {"path": str(folder)})[:2] == (409, "already_exists")
    assert wire.refused(f"{service}/ListDir", {"path": f"{folder}/file"})[:2] == (400, "invalid_argument")
    assert wire.refused(f"{service}/MakeDir", {"path": f"{folder}/file/below"})[:2] == (500, "internal")
    pid = 4_000_000
    signal = {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"}
    assert wire.refused("process.Process/SendSignal", signal)[:2] == (404, "not_found")


def test_malformed_json_is_invalid_argument(wire: Wire) -> None:
    headers = wire.headers({"Content-Type": "application/json"})
    response = wire.http.post("/filesystem.Filesystem/Stat", content=b'{"path": 5, ', headers=headers)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_argument")


@pytest.mark.parametrize("body", [b"", b"\0\0\0", b"\0\xff\xff\xff\xff{}", b"\x01\0\0\0\2{}", b"\0\0\0\0\2{!"])
def test_malformed_envelopes_end_with_an_error(wire: Wire, body: bytes) -> None:
    headers = wire.headers({"Content-Type": "application/connect+json"})
    response = wire.http.post(f"/{START}", content=body, headers=headers)
    assert response.status_code == 200
    assert response.content[0] == END
    assert b'"error"' in response.content
    assert wire.http.get("/health").status_code == 204


def test_unknown_content_type_is_refused(wire: Wire) -> None:
    headers = wire.headers({"Content-Type": "text/plain"})
    assert wire.http.post("/process.Process/List", content=b"{}", headers=headers).status_code == 415


def test_unknown_method_is_404_with_a_json_body(wire: Wire) -> None:
    response = wire.call("process.Process/Nothing", {})
    assert response.status_code == 404
    assert response.json()["code"] in (404, "unimplemented")


def test_binary_codec_answers_unary_calls(wire: Wire, folder: Path) -> None:
    (folder / "name").write_bytes(b"abc")
    request = filesystem_pb.StatRequest(path=f"{folder}/name").to_binary()
    headers = wire.headers({"Content-Type": "application/proto"})
    response = wire.http.post("/filesystem.Filesystem/Stat", content=request, headers=headers)
    assert response.headers["Content-Type"] == "application/proto"
    entry = filesystem_pb.StatResponse.from_binary(response.content).entry
    assert entry is not None
    assert (entry.name, entry.size, entry.type) == ("name", 3, filesystem_pb.FileType.FILE)


def test_binary_codec_streams(wire: Wire) -> None:
    config = process_pb.ProcessConfig(cmd="/bin/sh", args=["-c", "printf hi; exit 3"])
    request = process_pb.StartRequest(process=config, stdin=False).to_binary()
    with wire.stream(START, request, codec="proto") as arriving:
        *events, end = [*arriving]
    assert end.payload == b"{}"
    seen = [process_pb.StartResponse.from_binary(frame.payload).event.event for frame in events]  # type: ignore[union-attr]
    assert [one.field for one in seen if one] == ["start", "data", "end"]
    assert seen[1].value.output.value == b"hi"  # type: ignore[union-attr]
    assert (seen[2].value.exit_code, seen[2].value.exited) == (3, True)  # type: ignore[union-attr]


def test_binary_errors_are_json(wire: Wire) -> None:
    request = filesystem_pb.StatRequest(path="/does/not/exist").to_binary()
    headers = wire.headers({"Content-Type": "application/proto"})
    response = wire.http.post("/filesystem.Filesystem/Stat", content=request, headers=headers)
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_chunked_bodies_need_no_content_length(wire: Wire) -> None:
    headers = wire.headers({"Content-Type": "application/json"})
    response = wire.http.post("/filesystem.Filesystem/Stat", content=iter([b'{"pa', b'th":"/"}']), headers=headers)
    assert response.json()["entry"]["name"] == "/"


def test_bytes_are_base64_with_padding(wire: Wire) -> None:
    with wire.stream(START, command("/bin/echo", "-n", "a", stdin=False)) as arriving:
        data = next(frame.event["data"]["stdout"] for frame in arriving if "data" in frame.event)
    assert data == "YQ=="
    assert unbase64(data) == b"a"
