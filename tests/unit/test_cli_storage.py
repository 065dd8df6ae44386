"""`warren volume` and `warren secret` against a server that is a table of answers."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from warren.cli.app import run
from warren.cli.machine import LocalAccess, Machine

VOLUME = {"volumeID": "v" + "1" * 20, "name": "data", "sizeMB": 64}
FILES = f"/volumecontent/{VOLUME['volumeID']}"
ENTRY = {
    "name": "x", "type": "file", "path": "/in/x", "size": 3, "mode": 0o644, "uid": 1000, "gid": 7,
    "atime": "2026-01-02T03:04:05Z", "mtime": "2026-01-02T03:04:05Z", "ctime": "2026-01-02T03:04:05Z",
}  # fmt: skip
SECRET = {
    "secretID": "sec_1", "name": "token", "currentVersion": 1, "metadata": {}, "createdAt": "2026-01-02T03:04:05Z",
    "updatedAt": "2026-01-02T03:04:05Z",
}  # fmt: skip
Warren = Callable[..., tuple[int, str, str]]


class Server:
    def __init__(self) -> None:
        self.asked: list[httpx.Request] = []
        self.answers: dict[str, tuple[int, Any]] = {
            "GET /volumes": (200, [VOLUME]),
            f"GET /volumes/{VOLUME['volumeID']}": (200, VOLUME | {"token": "opens"}),
        }

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.asked.append(request)
        missing = (404, {"code": 404, "error_code": "secret_not_found", "message": "cannot find it"})
        status, body = self.answers.get(f"{request.method} {request.url.path}", missing)
        return httpx.Response(status, content=body) if isinstance(body, bytes) else httpx.Response(status, json=body)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def warren(server: Server, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> Warren:
    machine = Machine(
        environ={"E2B_API_KEY": "e2b_test", "WARREN_STATE_DIR": str(tmp_path / "state")},
        is_root=True,
        serve=lambda _: None,
        prepare=lambda settings: LocalAccess("", settings.tls_dir),
        transport=httpx.MockTransport(server),
    )

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(arguments, machine)
        said = capsysbinary.readouterr()
        return code, said.out.decode(), said.err.decode()

    return call


def test_files_are_opened_by_the_volume_s_token_alone(warren: Warren, server: Server, tmp_path: Path) -> None:
    server.answers |= {f"PUT {FILES}/file": (201, ENTRY), f"GET {FILES}/dir": (200, [ENTRY])}
    (tmp_path / "x").write_bytes(b"abc")
    assert warren("volume", "cp", str(tmp_path / "x"), "data:/in/")[0] == 0
    sent = server.asked[-1]
    assert (sent.url.params["path"], sent.content, sent.headers["Content-Length"]) == ("/in/x", b"abc", "3")
    code, shown, _ = warren("volume", "ls", "data:/in")
    assert code == 0 and "0644" in shown and "/in/x" in shown
    for request in (sent, server.asked[-1]):
        assert (request.headers["Authorization"], "X-API-KEY" in request.headers) == ("Bearer opens", False)


def test_a_download_is_whole_or_not_there(warren: Warren, server: Server, tmp_path: Path) -> None:
    server.answers[f"GET {FILES}/file"] = (200, b"abc")
    assert warren("volume", "cp", "data:/in/x", "-")[:2] == (0, "abc")
    assert warren("volume", "cp", "data:/in/x", str(tmp_path))[0] == 0
    assert (tmp_path / "x").read_bytes() == b"abc"
    server.answers[f"GET {FILES}/file"] = (400, {"code": 400, "error_code": "bad_request", "message": "a directory"})
    for place, target in (("data:/in/x", str(tmp_path / "y")), ("data:/", str(tmp_path))):
        assert warren("volume", "cp", place, target) == (1, "", "warren: a directory\n")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("words", [("a", "b"), ("data:/a", "data:/b"), ("./data:/a", "/data:/b")])
def test_one_side_of_a_copy_is_a_volume(warren: Warren, words: tuple[str, str]) -> None:
    code, _, said = warren("volume", "cp", *words)
    assert code == 1 and "exactly one of the two is VOLUME:PATH" in said


def test_an_unknown_volume_is_named(warren: Warren, server: Server) -> None:
    for words in (("info", "none"), ("ls", "none:/"), ("delete", "none")):
        code, _, said = warren("volume", *words)
        assert code == 1 and "'none'" in said


def test_a_value_comes_from_standard_input_without_its_last_line_feed(
    warren: Warren, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["POST /secrets"] = (201, SECRET)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"two\nlines\r\n")))
    assert warren("secret", "set", "token")[:2] == (0, "")
    assert json.loads(server.asked[-1].content) == {"name": "token", "value": "two\nlines"}
    assert [request.url.path for request in server.asked] == ["/secrets/token", "/secrets"]


@pytest.mark.parametrize(("content", "why"), [(b"", "empty"), (b"\n", "empty"), (b"\xff", "UTF-8")])
def test_a_value_that_is_none_is_refused_here(
    warren: Warren, server: Server, tmp_path: Path, content: bytes, why: str
) -> None:
    (tmp_path / "value").write_bytes(content)
    code, _, said = warren("secret", "set", "token", "--file", str(tmp_path / "value"))
    assert code == 1 and why in said and not server.asked


def test_a_value_is_no_argument(warren: Warren, server: Server) -> None:
    assert warren("secret", "set", "token", "value")[0] == 2
    assert not server.asked
