"""guestd against bad input on each of its calls: an error in its own form, never 500, and it goes on serving."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from .wire import END, command, envelope

if TYPE_CHECKING:
    from .wire import Wire

pytestmark = pytest.mark.threat("D5")
PROCESS = ("List", "Update", "SendInput", "SendSignal", "CloseStdin")
FILES = ("Stat", "MakeDir", "Move", "ListDir", "Remove", "CreateWatcher", "GetWatcherEvents", "RemoveWatcher")
UNARY = [*(f"process.Process/{name}" for name in PROCESS), *(f"filesystem.Filesystem/{name}" for name in FILES)]
STREAMS = ["process.Process/Start", "process.Process/Connect", "filesystem.Filesystem/WatchDir"]
NO_MESSAGES: dict[str, bytes] = {
    "nothing of a text": b"{",
    "a list": b"[]",
    "a number": b"1",
    "bytes that are no UTF-8": b'"\xff\xfe"',
    "a NUL": b"\0",
    "two values": b"{}{}",
    "half a character": b'{"path":"\\ud800","process":{"tag":"\\ud800"}}',
    "100,000 open brackets": b"[" * 100_000,
    "objects without an end": b'{"process":' * 5000,
    "wrong types": b'{"path":{},"process":[],"source":1,"watcherId":[],"depth":"x"}',
}
HUGE = b'{"depth":' + b"9" * 400 + b',"process":{"pid":' + b"9" * 400 + b"}}"
CODES = {"invalid_argument", "not_found", "unauthenticated", "failed_precondition", "unimplemented"}
EMPTY_IS_FINE = {"process.Process/List"}


def well(wire: Wire) -> bool:
    return wire.run(command("/bin/echo", "well", stdin=False)).stdout == b"well\n"


@pytest.mark.parametrize("method", UNARY)
def test_a_unary_call_says_what_is_wrong(wire: Wire, method: str) -> None:
    headers = wire.headers({"Content-Type": "application/json"})
    for what, body in NO_MESSAGES.items():
        answer = wire.http.post(f"/{method}", content=body, headers=headers)
        if method in EMPTY_IS_FINE and answer.status_code == 200:
            continue  # fields that it does not know
        assert 400 <= answer.status_code < 500, (what, answer.text)
        assert answer.json()["code"] in CODES, what
        assert answer.json()["message"], what
    assert well(wire)


@pytest.mark.parametrize("method", ["filesystem.Filesystem/ListDir", *UNARY[1:5]])
def test_a_number_beyond_its_type_is_an_error(wire: Wire, method: str) -> None:
    headers = wire.headers({"Content-Type": "application/json"})
    answer = wire.http.post(f"/{method}", content=HUGE, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_argument")


@pytest.mark.parametrize("method", STREAMS)
def test_a_stream_says_what_is_wrong_in_its_end(wire: Wire, method: str) -> None:
    headers = wire.headers({"Content-Type": "application/connect+json"})
    for what, body in NO_MESSAGES.items():
        answer = wire.http.post(f"/{method}", content=envelope(body), headers=headers)
        assert answer.status_code == 200, what
        assert answer.content[0] == END, what
        assert json.loads(answer.content[5:])["error"]["code"] in CODES, what
    assert well(wire)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\0",
        b"\0\0\0\0\x05{}",
        b"\0\xff\xff\xff\xff",
        b"\x01\0\0\0\x02{}",
        b"\x80\0\0\0\x02{}",
        b"\x02\0\0\0\x02{}",
    ],
)
def test_a_broken_envelope_is_an_error(wire: Wire, frame: bytes) -> None:
    headers = wire.headers({"Content-Type": "application/connect+json"})
    answer = wire.http.post("/process.Process/Start", content=frame, headers=headers)
    assert answer.status_code < 500
    assert b'"error"' in answer.content or b'"code"' in answer.content
    assert well(wire)


QUERIES: list[dict[str, Any]] = [
    {"path": "\0"},
    {"path": "/" + "a" * 5000},
    {"path": "a/" * 3000},
    {"path": "/nowhere/at/all"},
    {"path": "~nobody-here/x", "username": "nobody-here"},
    {"path": "/x", "username": "\0"},
    {"path": "/x", "username": "u" * 5000},
    {"path": "/x", "signature": "v1_" + "A" * 5000},
    {"path": "/x", "signature_expiration": "9" * 400},
]


@pytest.mark.parametrize("query", QUERIES, ids=[str(query)[:40] for query in QUERIES])
def test_a_download_of_a_bad_name_is_a_4xx(wire: Wire, query: dict[str, Any]) -> None:
    answer = wire.http.get("/files", params=query, headers=wire.headers({}))
    assert 400 <= answer.status_code < 500
    assert answer.json()["code"] == answer.status_code
    assert answer.json()["message"]
