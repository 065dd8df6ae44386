"""Contract 3.5, 6.2.4: POST /files/compose joins parts into one file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .wire import Wire

if TYPE_CHECKING:
    from pathlib import Path

    import httpx


def compose(wire: Wire, **body: Any) -> httpx.Response:
    return wire.http.post("/files/compose", json=body, headers=wire.headers({}))


@pytest.fixture
def parts(folder: Path) -> list[str]:
    for i in range(3):
        (folder / f"part{i}").write_text(f"<{i}>")
    return [f"{folder}/part{i}" for i in range(3)]


def test_parts_are_joined_in_order_and_deleted(wire: Wire, folder: Path, parts: list[str]) -> None:
    response = compose(wire, source_paths=parts, destination=f"{folder}/deep/whole")
    assert response.status_code == 200, response.text
    assert (folder / "deep/whole").read_text() == "<0><1><2>"
    assert [path.name for path in folder.iterdir()] == ["deep"]
    found = (folder / "deep/whole").stat()
    assert (found.st_uid, found.st_mode & 0o777) == (1000, 0o644)


def test_paths_belong_to_the_named_user(wire: Wire, folder: Path, parts: list[str]) -> None:
    response = compose(wire, source_paths=parts, destination="composed", username="root")
    assert response.status_code == 200
    assert (wire.daemon.home("root") / "composed").stat().st_uid == 0


def test_missing_part_changes_nothing(wire: Wire, folder: Path, parts: list[str]) -> None:
    (folder / "whole").write_text("old")
    response = compose(wire, source_paths=[*parts, f"{folder}/none"], destination=f"{folder}/whole")
    assert (response.status_code, response.json()["code"]) == (404, 404)
    assert (folder / "whole").read_text() == "old"
    assert len(list(folder.iterdir())) == 4


@pytest.mark.parametrize("body", [{}, {"source_paths": []}, {"destination": "x"}, {"source_paths": "x"}])
def test_incomplete_requests_are_400(wire: Wire, body: dict[str, object]) -> None:
    response = compose(wire, **body)
    assert (response.status_code, response.json()["code"]) == (400, 400)


def test_unknown_user_is_401(wire: Wire, folder: Path, parts: list[str]) -> None:
    assert compose(wire, source_paths=parts, destination=f"{folder}/x", username="ghost").status_code == 401


def test_full_disk_is_507_and_keeps_the_parts(wire: Wire, folder: Path) -> None:
    (folder / "big").write_bytes(b"x" * (3 << 20))
    response = compose(wire, source_paths=[f"{folder}/big"], destination=f"{wire.daemon.folder}/small/whole")
    assert (response.status_code, response.json()["code"]) == (507, 507)
    assert (folder / "big").exists()


def test_needs_the_token(wire: Wire, folder: Path, parts: list[str]) -> None:
    body = {"source_paths": parts, "destination": f"{folder}/x"}
    assert wire.http.post("/files/compose", json=body).status_code == 401
