"""Contract 3.5, 6.2.4: what a client pins to a file, kept as extended attributes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from e2b import Sandbox
from e2b.sandbox.filesystem.filesystem import WriteEntry

from .wire import Wire

if TYPE_CHECKING:
    from pathlib import Path

    import httpx


def put(wire: Wire, path: object, headers: dict[str, str] | list[tuple[str, str]]) -> httpx.Response:
    sent = {"Content-Type": "application/octet-stream", **dict(headers)}
    return wire.files("POST", params={"path": str(path)}, content=b"x", headers=sent)


def attributes(path: Path) -> dict[str, str]:
    return {name: os.getxattr(path, name).decode() for name in os.listxattr(path)}


@pytest.mark.parametrize("octets", [False, True])
def test_metadata_is_written_answered_and_shown(sandbox: Sandbox, folder: Path, octets: bool) -> None:
    path = f"{folder}/f"
    metadata = {"color": "blue", "x-y.z_1": "with: odd ~ chars"}
    assert sandbox.files.write(path, "x", metadata=metadata, use_octet_stream=octets).metadata == metadata
    assert sandbox.files.get_info(path).metadata == metadata
    assert sandbox.files.list(str(folder))[0].metadata == metadata
    assert sandbox.files.rename(path, f"{folder}/g").metadata == metadata
    assert attributes(folder / "g") == {f"user.e2b.{key}": value for key, value in metadata.items()}


def test_every_file_of_a_request_gets_it(sandbox: Sandbox, folder: Path) -> None:
    entries = [WriteEntry(path=f"{folder}/{i}", data="x") for i in range(3)]
    for info in sandbox.files.write_files(entries, metadata={"a": "1"}):
        assert sandbox.files.get_info(info.path).metadata == {"a": "1"}


def test_new_metadata_replaces_all_of_the_old(sandbox: Sandbox, folder: Path) -> None:
    sandbox.files.write(f"{folder}/f", "x", metadata={"a": "1", "b": "2"})
    sandbox.files.write(f"{folder}/f", "x", metadata={"c": "3"})
    assert sandbox.files.get_info(f"{folder}/f").metadata == {"c": "3"}


def test_keys_are_lower_case(wire: Wire, folder: Path) -> None:
    assert put(wire, folder / "f", {"X-Metadata-CoLor": "Blue"}).json()[0]["metadata"] == {"color": "Blue"}
    assert attributes(folder / "f") == {"user.e2b.color": "Blue"}


def test_answer_has_no_metadata_field_without_metadata(wire: Wire, folder: Path) -> None:
    assert "metadata" not in put(wire, folder / "f", {}).json()[0]


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Metadata-" + "k" * 247: "v"},
        {"X-Metadata-k": "v" * 5000},
        {f"X-Metadata-k{i}": "v" * 500 for i in range(10)},
        {"X-Metadata-k": "tab\tinside"},
    ],
    ids=["long key", "long value", "long total", "unprintable"],
)
def test_metadata_beyond_its_bounds_is_400_and_writes_nothing(
    wire: Wire, folder: Path, headers: dict[str, str]
) -> None:
    response = put(wire, folder / "f", headers)
    assert (response.status_code, response.json()["code"]) == (400, 400)
    assert list(folder.iterdir()) == []


def test_non_ascii_values_are_400(wire: Wire, folder: Path) -> None:
    sent = {**wire.headers({"Content-Type": "application/octet-stream"})}
    raw = [(name.encode(), value.encode()) for name, value in sent.items()] + [(b"X-Metadata-k", b"\xc3\xbc")]
    response = wire.http.post("/files", params={"path": f"{folder}/f"}, content=b"x", headers=raw)
    assert (response.status_code, response.json()["code"]) == (400, 400)


def test_longest_allowed_key_and_total(wire: Wire, folder: Path) -> None:
    assert put(wire, folder / "f", {"X-Metadata-" + "k" * 246: "v"}).status_code == 200
    assert put(wire, folder / "g", {"X-Metadata-k": "v" * 3500}).status_code == 200
