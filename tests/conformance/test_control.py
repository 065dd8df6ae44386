"""Warren's own routes of guestd: the tunnel to a port inside, and the log of what happened."""

from __future__ import annotations

import http.server
import socket
import threading
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from .conftest import CONTROL, TOKEN
from .processes import eventually
from .wire import Wire, command, shell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .daemon import Daemon

BULK = 16 << 20


@pytest.fixture
def controlled(fresh: Daemon) -> Daemon:
    fresh.init(accessToken=TOKEN, controlToken=CONTROL)
    return fresh


@contextmanager
def listening(address: str = "127.0.0.1") -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as server:
        server.bind((address, 0))
        server.listen()
        server.settimeout(10)
        yield server


@contextmanager
def tunnel(daemon: Daemon, port: object, **headers: str) -> Iterator[tuple[bytes, socket.socket]]:
    """The head of the answer, and the connection behind it."""
    sent = {"Connection": "Upgrade", "Upgrade": "warren-tunnel", "X-Warren-Control": CONTROL}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"GET /warren/tunnel?port={port} HTTP/1.1", f"Host: 127.0.0.1:{daemon.port}"]
    lines += [f"{name}: {value}" for name, value in sent.items() if value]
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=10) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            byte = connection.recv(1)
            if not byte:
                break
            head += byte
        yield head, connection


def read_all(connection: socket.socket) -> bytes:
    found = bytearray()
    while block := connection.recv(1 << 18):
        found += block
    return bytes(found)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_tunnel_reaches_a_loopback_listener(controlled: Daemon, address: str) -> None:
    with listening(address) as server, tunnel(controlled, server.getsockname()[1]) as (head, connection):
        assert head.startswith(b"HTTP/1.1 101")
        assert b"upgrade: warren-tunnel" in head.lower()
        inner, _ = server.accept()
        with inner:
            connection.sendall(b"to the inside")
            assert inner.recv(100) == b"to the inside"
            inner.sendall(b"to the outside")
            assert connection.recv(100) == b"to the outside"


def test_tunnel_closes_each_direction_by_itself(controlled: Daemon) -> None:
    with listening() as server, tunnel(controlled, server.getsockname()[1]) as (_, connection):
        inner, _ = server.accept()
        with inner:
            connection.sendall(b"question")
            connection.shutdown(socket.SHUT_WR)
            assert read_all(inner) == b"question"
            inner.sendall(b"answer")
            inner.shutdown(socket.SHUT_WR)
            assert read_all(connection) == b"answer"


def test_tunnel_carries_bulk_both_ways(controlled: Daemon) -> None:
    with listening() as server, tunnel(controlled, server.getsockname()[1]) as (_, connection):
        inner, _ = server.accept()
        with inner:

            def echo() -> None:
                while block := inner.recv(1 << 18):
                    inner.sendall(block)
                inner.shutdown(socket.SHUT_WR)

            def feed() -> None:
                connection.sendall(bytes(range(256)) * (BULK // 256))
                connection.shutdown(socket.SHUT_WR)

            threads = [threading.Thread(target=work) for work in (echo, feed)]
            for thread in threads:
                thread.start()
            assert read_all(connection) == bytes(range(256)) * (BULK // 256)
            for thread in threads:
                thread.join(10)


def test_tunnel_passes_on_what_came_with_the_request(controlled: Daemon) -> None:
    """A client may send its first bytes right behind the head: they belong to the inside."""
    with listening() as server:
        port = server.getsockname()[1]
        head = f"GET /warren/tunnel?port={port} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n"
        head += f"Upgrade: warren-tunnel\r\nX-Warren-Control: {CONTROL}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", controlled.port), timeout=10) as connection:
            connection.sendall(head.encode() + b"early bytes")
            inner, _ = server.accept()
            with inner:
                assert inner.recv(100) == b"early bytes"


def test_tunnel_ends_when_either_side_goes(controlled: Daemon) -> None:
    with listening() as server:
        before = controlled.descriptors()
        for closer in (0, 1):
            with tunnel(controlled, server.getsockname()[1]) as (_, connection):
                inner, _ = server.accept()
                with inner:
                    (connection, inner)[closer].close()
                    other = (inner, connection)[closer]
                    assert other.recv(1) == b""
        eventually(lambda: controlled.descriptors() <= before + 1, "both sockets are closed")


def test_closed_port_is_502(controlled: Daemon) -> None:
    with listening() as server:
        port = server.getsockname()[1]
    with tunnel(controlled, port) as (head, connection):
        assert head.startswith(b"HTTP/1.1 502")
        assert b'"port is not open"' in connection.recv(4096)


@pytest.mark.parametrize("port", [49983, 0, -1, 65536, "x", ""])
def test_odd_ports_and_its_own_are_400(controlled: Daemon, port: object) -> None:
    with tunnel(controlled, port) as (head, _):
        assert head.startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("headers", [{"X_Warren_Control": ""}, {"X_Warren_Control": "no"}])
def test_tunnel_needs_the_control_token(controlled: Daemon, headers: dict[str, str]) -> None:
    with (
        listening() as server,
        tunnel(controlled, server.getsockname()[1], X_Access_Token=TOKEN, **headers) as (head, _),
    ):
        assert head.startswith(b"HTTP/1.1 401")


def test_tunnel_without_an_upgrade_is_400(controlled: Daemon) -> None:
    with listening() as server:
        port = server.getsockname()[1]
        response = httpx.get(f"{controlled.url}/warren/tunnel?port={port}", headers=controlled.control_headers())
        assert response.status_code in (400, 426)
        assert response.json()["code"] == response.status_code


def test_tunnel_carries_http(controlled: Daemon) -> None:
    handler = http.server.SimpleHTTPRequestHandler
    handler.log_message = lambda *_: None  # type: ignore[method-assign]
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with tunnel(controlled, server.server_port) as (_, connection):
            connection.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
            assert b"200" in connection.recv(100)
        thread.join(10)


def logs(daemon: Daemon, **query: Any) -> dict[str, Any]:
    response = httpx.get(f"{daemon.url}/warren/logs", params=query, headers=daemon.control_headers())
    assert response.status_code == 200, response.text
    return response.json()


def test_logs_tell_of_processes_with_the_agreed_fields(controlled: Daemon) -> None:
    run = Wire(controlled).run(shell("exit 3"))
    found = logs(controlled, limit=1000)
    assert found["dropped"] == 0
    assert {"seq", "timestamp", "level", "logger", "message", "fields"} <= set(found["entries"][0])
    for entry in found["entries"]:
        assert datetime.fromisoformat(entry["timestamp"]).tzinfo is not None
        assert all(isinstance(value, str) for value in entry["fields"].values())
    mine = [entry for entry in found["entries"] if str(run.pid) in str(entry)]
    assert len(mine) >= 2
    assert {entry["logger"] for entry in mine} == {"process"}
    assert "3" in str(mine[-1]["fields"])


def test_logs_go_on_after_a_sequence_number_and_are_limited(controlled: Daemon) -> None:
    wire = Wire(controlled)
    for _ in range(5):
        wire.run(shell("true"))
    entries = logs(controlled, limit=1000)["entries"]
    numbers = [entry["seq"] for entry in entries]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert logs(controlled, after=numbers[2], limit=2)["entries"] == entries[3:5]
    assert logs(controlled, after=numbers[-1])["entries"] == []


def test_logs_never_hold_tokens_or_values_of_variables(controlled: Daemon) -> None:
    wire = Wire(controlled)
    controlled.init(accessToken=TOKEN, envVars={"A": "value-of-init"})
    wire.run(command("/bin/true", stdin=False, envs={"B": "value-of-request"}))
    text = str(logs(controlled, limit=1000))
    for secret in (TOKEN, CONTROL, "value-of-init", "value-of-request"):
        assert secret not in text


@pytest.mark.timeout(120)
def test_logs_are_bounded_and_count_what_was_dropped(controlled: Daemon) -> None:
    wire = Wire(controlled)
    wire.run(command("/bin/true", "x" * 100_000, stdin=False))
    for _ in range(1100):
        wire.run(command("/bin/true", stdin=False))
    found = logs(controlled, after=0, limit=100_000)
    assert len(found["entries"]) <= 2000
    assert found["dropped"] > 0
    assert max(len(entry["message"]) for entry in found["entries"]) <= 4096


def test_logs_need_the_control_token(controlled: Daemon) -> None:
    for headers in ({}, {"X-Access-Token": TOKEN}, {"X-Warren-Control": "no"}):
        response = httpx.get(f"{controlled.url}/warren/logs", headers=headers)
        assert (response.status_code, response.json()["code"]) == (401, 401)


@pytest.mark.parametrize("query", [{"after": "x"}, {"after": "-1"}, {"limit": "0"}, {"limit": "x"}])
def test_odd_log_queries_do_no_harm(controlled: Daemon, query: dict[str, str]) -> None:
    response = httpx.get(f"{controlled.url}/warren/logs", params=query, headers=controlled.control_headers())
    assert response.status_code in (200, 400)
