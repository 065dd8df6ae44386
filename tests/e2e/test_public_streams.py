"""Long-lived traffic to ports inside a sandbox: streams, WebSockets, and what happens to them when it ends."""

import hashlib
import socket
import ssl
from collections.abc import Callable, Iterator

import httpx
import pytest
from e2b import Sandbox
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.e2e.local_server import LocalServer
from tests.e2e.public_url import PublicUrl
from tests.e2e.waiting import until

PORT = 8000
SERVER = '''
import base64, hashlib, http.server, os, socketserver, struct, time

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.headers.get("Upgrade", "").lower() == "websocket":
            return self.websocket()
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.chunk(b"first")
        while not os.path.exists("/tmp/go-on"):
            time.sleep(0.02)
        self.chunk(b"second")
        self.chunk(b"")

    def do_POST(self):
        digest, left = hashlib.sha256(), int(self.headers["Content-Length"])
        while left:
            block = self.rfile.read(min(left, 65536))
            digest.update(block)
            left -= len(block)
        body = digest.hexdigest().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def chunk(self, data):
        self.wfile.write(b"%x\\r\\n%s\\r\\n" % (len(data), data))
        self.wfile.flush()

    def websocket(self):
        """Echoes one short masked frame after the other (RFC 6455)."""
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        while True:
            first, length = self.rfile.read(2)
            length &= 127
            mask = self.rfile.read(4)
            data = bytes(byte ^ mask[index % 4] for index, byte in enumerate(self.rfile.read(length)))
            self.wfile.write(bytes((first, length)) + data)
            self.wfile.flush()
            if first & 15 == 8:
                self.close_connection = True
                return

class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

Server(("127.0.0.1", 8000), Handler).serve_forever()
'''


@pytest.fixture
def live(create: Callable[..., Sandbox], public: PublicUrl) -> Iterator[Sandbox]:
    """A sandbox of the test's own, with that server on its loopback."""
    sandbox = create()
    sandbox.files.write("/tmp/server.py", SERVER)
    sandbox.commands.run("python3 /tmp/server.py", background=True, timeout=0)
    until(lambda: public.request("POST", sandbox.get_host(PORT), content=b"x").status_code == 200, 20, "it serves")
    yield sandbox


@pytest.fixture
def tls(server: LocalServer) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(server.ca_bundle))


def websocket(sandbox: Sandbox, tls: ssl.SSLContext) -> ClientConnection:
    host = sandbox.get_host(PORT)
    name, _, port = host.partition(":")
    raw = socket.create_connection(("127.0.0.1", int(port)), timeout=20)
    return connect(f"wss://{host}/", sock=raw, ssl=tls, server_hostname=name, compression=None)


def stream(sandbox: Sandbox, server: LocalServer) -> httpx.Client:
    headers = {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": str(PORT)}
    return httpx.Client(base_url=server.gateway_url, headers=headers, timeout=30)


@pytest.mark.covers("S21")
def test_a_stream_is_passed_on_as_it_comes(live: Sandbox, server: LocalServer) -> None:
    with stream(live, server) as client, client.stream("GET", "/") as answer:
        chunks = answer.iter_raw()
        assert next(chunks) == b"first"
        live.files.write("/tmp/go-on", "")
        assert b"".join(chunks) == b"second"


@pytest.mark.covers("S21")
def test_a_large_body_arrives_whole(live: Sandbox, public: PublicUrl) -> None:
    body = bytes(range(256)) * 65536
    answer = public.request("POST", live.get_host(PORT), content=body)
    assert answer.text == hashlib.sha256(body).hexdigest()


@pytest.mark.covers("S21")
def test_websockets_work_through_the_public_address(live: Sandbox, tls: ssl.SSLContext) -> None:
    with websocket(live, tls) as connection:
        for text in ("one", "two", "žluťoučký"):
            connection.send(text)
            assert connection.recv(timeout=20) == text
        connection.send(b"\x00\xff")
        assert connection.recv(timeout=20) == b"\x00\xff"


@pytest.mark.covers("S21", "P10")
@pytest.mark.threat("B6")
def test_everything_open_is_cut_when_the_sandbox_ends(live: Sandbox, server: LocalServer, tls: ssl.SSLContext) -> None:
    with websocket(live, tls) as connection, stream(live, server) as client, client.stream("GET", "/") as answer:
        connection.send("hello")
        assert connection.recv(timeout=20) == "hello"
        chunks = answer.iter_raw()
        assert next(chunks) == b"first"
        assert live.kill()
        with pytest.raises(httpx.TransportError):
            next(chunks)
        with pytest.raises(ConnectionClosed):
            connection.recv(timeout=20)
