"""Uploads for COPY steps: a signed link each, bytes that arrive whole or not at all, limits by name."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import httpx
import pytest

from tests.unit.api_server import ApiServer, api_server
from tests.unit.build_rig import FakeBuilder, request
from warren.api.app import create_app
from warren.control import uploads as module
from warren.model import limits
from warren.model.audit import Kind, Outcome

pytestmark = [pytest.mark.threat("D5"), pytest.mark.anyio]
HASH = "a1" * 32
BYTES = os.urandom(3_000_000)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def link(server: ApiServer, files_hash: str = HASH) -> dict[str, Any]:
    made = await request(server)
    answer = await server.client.get(f"/templates/{made['templateID']}/files/{files_hash}")
    assert answer.status_code == 201, answer.text
    return {**answer.json(), "templateID": made["templateID"]}


async def put(server: ApiServer, url: str, content: Any, **headers: str) -> httpx.Response:
    """As the clients do: the link alone, no key."""
    return await server.client.put(url, content=content, headers={"X-API-KEY": "", **headers})


def kept(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "uploads").rglob("*") if path.is_file()]


async def test_what_was_uploaded_by_its_link_is_there_whole(tmp_path: Path) -> None:
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        asked = await link(server)
        assert (asked["present"], asked["headers"]) == (False, {})
        assert asked["url"].startswith(f"http://warren/templates/{asked['templateID']}/files/{HASH}?")
        answer = await put(server, asked["url"], BYTES)
        assert (answer.status_code, answer.content) == (204, b"")
        (file,) = kept(tmp_path)
        assert (file.read_bytes() == BYTES, file.stat().st_mode & 0o777) == (True, 0o600)
        assert file == server.control.context.uploads.path(asked["templateID"], HASH)
        again = await link(server)
        assert (again["present"], bool(again["url"])) == (True, True)
        assert (await put(server, again["url"], b"other")).status_code == 204
        assert [path.read_bytes() for path in kept(tmp_path)] == [b"other"]


async def test_an_upload_is_written_down_with_whose_link_it_was(tmp_path: Path) -> None:
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        asked = await link(server)
        await put(server, asked["url"], b"x")
        (key,) = await server.store.keys(server.project.id)
        event = server.audit.events[-1]
        assert (event.kind, event.outcome, event.subject) == (
            Kind.TEMPLATE_UPLOAD, Outcome.ALLOWED, f"template:{asked['templateID']}",
        )  # fmt: skip
        assert (event.project, event.key) == (server.project.id, key.id)


async def test_a_link_is_good_for_what_it_says_and_no_more(tmp_path: Path) -> None:
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        asked = await link(server)
        other = await request(server, "other")
        parts = urlsplit(asked["url"])
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        assert set(query) == {"project", "key", "expires", "signature"}
        for path, change in (
            (parts.path.replace(HASH, "b" * 64), {}),
            (parts.path.replace(asked["templateID"], other["templateID"]), {}),
            (parts.path, {"expires": str(int(query["expires"]) + 1)}),
            (parts.path, {"project": "another"}),
            (parts.path, {"key": "another"}),
            (parts.path, {"signature": "0" * 64}),
            (parts.path, {"signature": "ü"}),
        ):
            answer = await server.client.put(path, params=query | change, content=b"x")
            assert (answer.status_code, answer.json()["error_code"]) == (403, "forbidden"), (path, change)
        for missing in query:
            params = {name: value for name, value in query.items() if name != missing}
            assert (await server.client.put(parts.path, params=params, content=b"x")).status_code == 400
        assert kept(tmp_path) == []


async def test_a_link_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UPLOAD_LINK_S", -1)
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        answer = await put(server, (await link(server))["url"], b"x")
        assert (answer.status_code, "expired" in answer.json()["message"]) == (403, True)


@pytest.mark.parametrize("files_hash", ["x", "A" * 64, "g" * 64, "..%2f..", "a" * 63, "%00"])
async def test_a_hash_that_is_none_is_400(tmp_path: Path, files_hash: str) -> None:
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        made = await request(server)
        answer = await server.client.get(f"/templates/{made['templateID']}/files/{files_hash}")
        assert (answer.status_code, answer.json()["code"]) in {(400, 400), (404, 404)}
        if "/" not in unquote(files_hash) and answer.status_code == 400:
            assert answer.json()["message"] == "Invalid files hash"


async def parts_of(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_the_length_is_announced_and_kept_to(tmp_path: Path) -> None:
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        url = (await link(server))["url"]
        chunked = await put(server, url, parts_of(b"a", b"b"))
        assert (chunked.status_code, chunked.json()["code"]) == (411, 411)
        for length, content in (("1", b"two"), ("5", b"two")):
            answer = await put(server, url, parts_of(content), **{"Content-Length": length})
            assert (answer.status_code, "Content-Length" in answer.json()["message"]) == (400, True), length
        assert kept(tmp_path) == []


async def test_limits_have_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        url = (await link(server))["url"]
        monkeypatch.setattr(limits, "UPLOAD_MAX_BYTES", 10)
        assert (await put(server, url, b"x" * 11)).status_code == 413
        monkeypatch.setattr(limits, "UPLOAD_MAX_BYTES", 100)
        monkeypatch.setattr(limits, "TEMPLATE_UPLOAD_BYTES", 10)
        assert (await put(server, url, b"x" * 8)).status_code == 204
        assert (await put(server, url, b"y" * 9)).status_code == 204  # in place of the one before
        second = (await link(server, "b" * 64))["url"]
        assert (await put(server, second, b"x" * 2)).status_code == 429
        monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
        assert (await put(server, second, b"x")).status_code == 507
        monkeypatch.setattr(limits, "UPLOADS_AT_ONCE", 0)
        assert (await put(server, second, b"x")).status_code == 503
        assert [len(path.read_bytes()) for path in kept(tmp_path)] == [9]


async def broken_off(server: ApiServer, url: str) -> int:
    """The status for a client that goes away after half of its bytes."""
    parts = urlsplit(url)
    scope = {
        "type": "http", "http_version": "1.1", "method": "PUT", "scheme": "http", "path": parts.path,
        "raw_path": parts.path.encode(), "query_string": parts.query.encode(), "client": ("127.0.0.1", 1),
        "server": ("warren", 80), "headers": [(b"host", b"warren"), (b"content-length", b"8")],
    }  # fmt: skip
    coming = iter([{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(coming)

    async def send(message: Any) -> None:
        sent.append(message)

    await create_app(server.control.context)(scope, receive, send)
    return sent[0]["status"]


async def test_an_upload_that_falls_silent_or_breaks_off_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent() -> AsyncIterator[bytes]:
        yield b"half"
        await asyncio.Event().wait()

    monkeypatch.setattr(limits, "UPLOAD_SILENCE_S", 0.05)
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        url = (await link(server))["url"]
        assert (await put(server, url, silent(), **{"Content-Length": "8"})).status_code == 504
        assert await broken_off(server, url) == 400
        assert kept(tmp_path) == []
        assert (await put(server, url, b"whole")).status_code == 204


async def test_uploads_go_with_their_template_and_with_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with api_server(tmp_path, builder=FakeBuilder()) as server:
        asked = await link(server)
        await put(server, asked["url"], b"x")
        (tmp_path / "uploads" / asked["templateID"] / ".half").write_bytes(b"x")
        await server.control.context.uploads.sweep()
        assert len(kept(tmp_path)) == 2
        await server.control.context.builds.recover()
        assert [path.name for path in kept(tmp_path)] == [HASH], "a server that starts clears what was half-taken"
        monkeypatch.setattr(limits, "UPLOAD_KEPT_S", -60)
        await server.control.context.uploads.sweep()
        assert list((tmp_path / "uploads").iterdir()) == []
        await put(server, asked["url"], b"x")
        await server.client.delete("/templates/mine")
        assert kept(tmp_path) == []
