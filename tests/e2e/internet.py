"""The Internet as the tests know it: a network namespace of this machine. Nothing is ever sent anywhere else.

It answers at addresses of TEST-NET-3 (RFC 5737), and at addresses that no sandbox may reach (private ranges, cloud
metadata). Those are the traps: whatever gets there is written down.
"""

import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from tests import addresses

TRAPS = ("169.254.169.254", "10.255.255.1", "172.31.255.1", "192.168.255.1", "100.64.255.1")
READY_S = 20.0

LISTENER = """
import socket, sys, threading
def web(listener):
    while True:
        peer, (address, _) = listener.accept()
        print(peer.getsockname()[0], address, flush=True)
        # Each in a thread: a peer that stands still, frozen in the middle of its request, holds up nobody.
        threading.Thread(target=answer, args=(peer, address), daemon=True).start()
def answer(peer, address):
    peer.settimeout(5)
    try:
        peer.recv(65536)
        body = f"{peer.getsockname()[0]} saw {address}"
        head = f"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n"
        peer.sendall((head + body).encode())
    except OSError:
        pass
    peer.close()
def hold(listener):
    kept = []
    while True:
        kept.append(listener.accept())
threading.Thread(target=hold, args=(socket.create_server(("0.0.0.0", 81)),), daemon=True).start()
listener = socket.create_server(("0.0.0.0", 80), backlog=64)
print("ready", flush=True)
web(listener)
"""


class Internet:
    """`near` is this machine's own address on that side, `servers` answer on port 80, and on 81 never say a word."""

    def __init__(self, folder: Path) -> None:
        tag = secrets.token_hex(2)
        block = 203, 0, 113, _own_block()
        self.near = ".".join(map(str, (*block[:3], block[3] + 1)))
        self.servers = tuple(".".join(map(str, (*block[:3], block[3] + last))) for last in (2, 3))
        self.block = ".".join(map(str, block)) + "/28"
        self.traps: tuple[str, ...] = ()
        self._namespace, self._here, self._there = f"wtnet{tag}", f"wti{tag}", f"wto{tag}"
        self._seen = folder / "seen"

    def visits(self) -> list[tuple[str, str]]:
        """(address that was reached, address it came from) of every connection so far."""
        lines = self._seen.read_text().splitlines()
        return [(line.split()[0], line.split()[1]) for line in lines if " " in line]

    @contextmanager
    def up(self) -> Iterator["Internet"]:
        ip("netns", "add", self._namespace)
        try:
            self._connect()
            with self._seen.open("wb") as seen:
                inside = ["ip", "netns", "exec", self._namespace, sys.executable, "-c", LISTENER]
                listener = subprocess.Popen(inside, stdout=seen, stdin=subprocess.DEVNULL)
                try:
                    self._wait(listener)
                    yield self
                finally:
                    listener.kill()
                    listener.wait()
        finally:
            with suppress(subprocess.CalledProcessError):
                ip("link", "del", self._here)
            ip("netns", "del", self._namespace)

    def _connect(self) -> None:
        ip("link", "add", self._here, "type", "veth", "peer", "name", self._there, "netns", self._namespace)
        ip("addr", "add", f"{self.near}/28", "dev", self._here)
        ip("link", "set", self._here, "up")
        for server in self.servers:
            ip("-n", self._namespace, "addr", "add", f"{server}/28", "dev", self._there)
        for device in (self._there, "lo"):
            ip("-n", self._namespace, "link", "set", device, "up")
        ip("-n", self._namespace, "route", "add", "default", "via", self.near)
        self.traps = tuple(trap for trap in TRAPS if not _in_use(trap))
        for trap in self.traps:
            ip("-n", self._namespace, "addr", "add", f"{trap}/32", "dev", self._there)
            ip("route", "add", f"{trap}/32", "via", self.servers[0], "dev", self._here)

    def _wait(self, listener: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + READY_S
        while "ready" not in self._seen.read_text():
            if listener.poll() is not None or time.monotonic() > deadline:
                raise AssertionError("the Internet of the test did not start")
            time.sleep(0.02)


@cache
def _own_block() -> int:
    """The last byte of a /28 that no other process of the tests has."""
    for start in range(0, 256, 16):
        if addresses.claim(f"203.0.113.{start}"):
            return start
    raise AssertionError("no block of 203.0.113.0/24 is free; which tests still run?")


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def _in_use(address: str) -> bool:
    """Whether this machine has that address, or a way of its own to it: then it is left alone."""
    route = ip("route", "get", address)
    table = ip("route", "show", "match", address)
    return route.startswith("local") or any(not line.startswith("default") for line in table.splitlines())
