#!/usr/bin/python3
"""Stands in for guestd: takes its identity as it should, and answers everything else as `WAY` says.

Which way is an environment variable of the sandbox, so it arrives with `/init` like any other.
"""

import json
import socket
import threading
import time

PORT = 49983
OK = b"HTTP/1.1 204 No Content\r\n\r\n"
WAY = {"name": "none"}


def answer(connection: socket.socket) -> None:
    head, _, body = received(connection, b"").partition(b"\r\n\r\n")
    if head.startswith(b"POST /init"):
        while (identity := parsed(body)) is None:
            body = received(connection, body)
        WAY["name"] = identity["envVars"].get("WAY", "none")
        connection.sendall(OK)
    else:
        {"garbage": garbage, "endless": endless, "error": error, "hang-up": hang_up, "never": never}.get(
            WAY["name"], well
        )(connection)


def received(connection: socket.socket, before: bytes) -> bytes:
    """What has come, whole up to the end of the head."""
    data = before + connection.recv(65536)
    while not before and b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    return data


def parsed(body: bytes) -> dict | None:
    try:
        return json.loads(body)
    except ValueError:
        return None


def well(connection: socket.socket) -> None:
    connection.sendall(OK)


def garbage(connection: socket.socket) -> None:
    connection.sendall(bytes(range(256)) * 8)


def endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-More: and more\r\n" * 64)
        time.sleep(0.05)


def error(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")


def hang_up(_: socket.socket) -> None:
    return None


def never(_: socket.socket) -> None:
    time.sleep(3600)


def serve(connection: socket.socket) -> None:
    with connection:
        try:
            answer(connection)
        except OSError:
            pass


if __name__ == "__main__":
    listener = socket.create_server(("0.0.0.0", PORT), backlog=128)
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
