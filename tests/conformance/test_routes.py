"""Contract 3.5, 6.2.4, 6.2.7: the small routes, CORS and what is not there."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

import httpx
import pytest
from e2b import AsyncSandbox, Sandbox

from .processes import eventually
from .wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from .daemon import Daemon

VERBS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
SLOW_HEADERS = 1 << 21  # bytes of headers that nobody needs


def test_health_is_204_without_a_body(guest: Daemon, sandbox: Sandbox) -> None:
    response = httpx.get(f"{guest.url}/health")
    assert (response.status_code, response.content) == (204, b"")
    assert sandbox.is_running() is True


@pytest.mark.anyio
async def test_async_client_sees_health(async_sandbox: Callable[[], AsyncSandbox]) -> None:
    assert await async_sandbox().is_running() is True


def test_metrics_have_every_field_and_tell_the_truth(wire: Wire) -> None:
    found = wire.http.get("/metrics", headers=wire.headers({})).json()
    names = "ts cpu_count cpu_used_pct mem_total mem_used mem_cache mem_total_mib mem_used_mib disk_used disk_total"
    assert set(found) >= set(names.split())
    assert abs(found["ts"] - time.time()) < 60
    assert found["cpu_count"] == os.cpu_count()
    assert 0 <= found["cpu_used_pct"] <= 100 * found["cpu_count"]
    disk = os.statvfs("/")
    assert found["disk_total"] == disk.f_blocks * disk.f_frsize
    assert 0 < found["disk_used"] <= found["disk_total"]
    assert found["mem_total_mib"] == found["mem_total"] >> 20
    assert 0 < found["mem_used"] <= found["mem_total"]


def test_envs_are_a_json_map_of_the_init_variables(wire: Wire) -> None:
    response = wire.http.get("/envs", headers=wire.headers({}))
    assert response.headers["Content-Type"].startswith("application/json")
    assert response.json()["FROM_INIT"] == "yes"


@pytest.mark.parametrize("path", ["/", "/nothing", "/files/nothing", "/process.Process", "/warren/nothing", "/%00"])
def test_unknown_routes_are_404_with_a_json_body(wire: Wire, path: str) -> None:
    response = wire.http.get(path, headers=wire.headers({}))
    assert response.status_code == 404
    assert response.json()["code"] == 404
    assert response.json()["message"]


@pytest.mark.parametrize(
    ("verb", "path"),
    [("POST", "/health"), ("DELETE", "/files"), ("PUT", "/files"), ("GET", "/init"), ("POST", "/envs")],
)
def test_wrong_methods_are_405_with_a_json_body(wire: Wire, verb: str, path: str) -> None:
    response = wire.http.request(verb, path, headers=wire.headers({}))
    assert response.status_code == 405
    assert response.json()["code"] == 405


def test_get_on_a_procedure_is_405(wire: Wire) -> None:
    assert wire.http.get("/process.Process/Start", headers=wire.headers({})).status_code == 405


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("path", ["/files", "/process.Process/Start", "/anything"])
def test_preflight_needs_no_token_and_allows_all(guest: Daemon, verb: str, path: str) -> None:
    headers = {
        "Origin": "https://any.example",
        "Access-Control-Request-Method": verb,
        "Access-Control-Request-Headers": "x-access-token, connect-protocol-version, x-anything",
    }
    response = httpx.options(guest.url + path, headers=headers)
    assert response.status_code in (200, 204)
    assert response.headers["Access-Control-Allow-Origin"] in ("*", "https://any.example")
    assert (
        verb in response.headers["Access-Control-Allow-Methods"]
        or response.headers["Access-Control-Allow-Methods"] == "*"
    )
    allowed = response.headers["Access-Control-Allow-Headers"].lower()
    assert allowed == "*" or {"x-access-token", "x-anything"} <= {name.strip() for name in allowed.split(",")}
    assert response.headers["Access-Control-Max-Age"] == "7200"


def test_answers_carry_cors_headers_even_when_refused(guest: Daemon, wire: Wire) -> None:
    origin = {"Origin": "https://any.example"}
    for response in (
        httpx.get(f"{guest.url}/health", headers=origin),
        httpx.get(f"{guest.url}/envs", headers=origin),
        wire.http.get("/envs", headers=wire.headers(origin)),
    ):
        assert response.headers["Access-Control-Allow-Origin"] in ("*", "https://any.example")
        exposed = response.headers["Access-Control-Expose-Headers"].lower()
        assert {"location", "cache-control", "x-content-type-options"} <= {name.strip() for name in exposed.split(",")}


@pytest.mark.parametrize(
    "junk",
    [
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /files HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nX: " + b"y" * SLOW_HEADERS + b"\r\n\r\n",
        b"\0" * 4096,
    ],
    ids=["tls", "version", "negative length", "bad chunk", "header bomb", "zeros"],
)
def test_junk_is_refused_and_does_no_harm(guest: Daemon, junk: bytes) -> None:
    guest.reset_peak()
    with socket.create_connection(("127.0.0.1", guest.port), timeout=10) as connection:
        try:
            connection.sendall(junk)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(65536)
        except OSError:
            answer = b""
    assert answer == b"" or b" 4" in answer[:16] or b" 5" in answer[:16]
    assert httpx.get(f"{guest.url}/health").status_code == 204
    assert guest.growth() < 48 << 20


def test_connections_are_kept_and_reused(guest: Daemon) -> None:
    with socket.create_connection(("127.0.0.1", guest.port), timeout=10) as connection:
        for _ in range(20):
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 204")


def test_hundreds_of_idle_connections_are_no_trouble(guest: Daemon) -> None:
    before = guest.descriptors()
    idle = [socket.create_connection(("127.0.0.1", guest.port), timeout=10) for _ in range(500)]
    assert httpx.get(f"{guest.url}/health").status_code == 204
    for connection in idle:
        connection.close()
    eventually(lambda: guest.descriptors() <= before + 8, "the connections are closed")
