"""How soon guestd alone answers after its exec, without any namespace around it."""

import os
import socket
import subprocess
import tempfile
import time

from tests.e2e.local_server import free_ports

TRIES = 10
STUCK_S = 5.0


def best_ms(guestd: str) -> float:
    """Milliseconds from the fork to the first answer; the best of several tries, because the machine is shared."""
    return min(_once(guestd) for _ in range(TRIES))


def _once(guestd: str) -> float:
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory() as folder:
        argv = [guestd, "-listen", f"127.0.0.1:{port}", "-etc", folder, "-run-dir", folder]
        began = time.perf_counter()
        with subprocess.Popen(argv, stderr=subprocess.DEVNULL, env={"PATH": os.defpath}) as daemon:
            try:
                while not _answers(port):
                    if time.perf_counter() - began > STUCK_S:
                        raise RuntimeError(f"cannot hear from guestd within {STUCK_S:g} s")
                return (time.perf_counter() - began) * 1000
            finally:
                daemon.kill()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=STUCK_S) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: guest\r\n\r\n")
            return connection.recv(100).startswith(b"HTTP/1.1 204")
    except ConnectionRefusedError:
        return False
