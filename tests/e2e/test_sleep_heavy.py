"""Pauses of what is large, full, busy or connected: all of it goes on after the resume."""

import base64
import hashlib
import io
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from e2b import Sandbox
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.e2e.local_server import LocalServer
from tests.e2e.waiting import until

LONG_S = 90.0
WHEELS, FILES_EACH = 6, 250

HEAP = """
import hashlib, os, time
chunks = [os.urandom(1 << 20) for _ in range(1024)]
def digest():
    whole = hashlib.sha256()
    for chunk in chunks: whole.update(chunk)
    return whole.hexdigest()
before = digest()
open("/tmp/full", "w").close()
while not os.path.exists("/tmp/check"): time.sleep(0.05)
open("/tmp/same.part", "w").write(str(before == digest()))
os.rename("/tmp/same.part", "/tmp/same")
"""
TO_THE_LIMIT = """
import mmap, os, time
def available():
    rows = dict(line.split(":", 1) for line in open("/proc/meminfo"))
    return int(rows["MemAvailable"].split()[0]) >> 10
held = []
while available() > 24:
    held.append(mmap.mmap(-1, 4 << 20))
    held[-1].write(len(held).to_bytes(4, "big") * (1 << 20))
open("/tmp/full", "w").write(str(len(held) * 4))
while not os.path.exists("/tmp/check"): time.sleep(0.05)
same = all(block[:] == number.to_bytes(4, "big") * (1 << 20) for number, block in enumerate(held, 1))
open("/tmp/same.part", "w").write(str(same))
os.rename("/tmp/same.part", "/tmp/same")
"""
TALKER = """
import base64, hashlib, http.server, itertools, socketserver, threading, time
count = [0]
def counting():
    for count[0] in itertools.count():
        time.sleep(0.01)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        while self.rfile.read(2):
            self.rfile.read(4 + 3)
            said = b"%d" % count[0]
            self.wfile.write(bytes((0x81, len(said))) + said)
            self.wfile.flush()
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
threading.Thread(target=counting, daemon=True).start()
Server(("127.0.0.1", 8000), Handler).serve_forever()
"""
"""A WebSocket that answers each message of three bytes with how far the program has counted (RFC 6455)."""


CHECK_INSTALLED = """cd /home/user/site && python3 - <<'END'
import base64, csv, glob, hashlib
whole = 0
for record in glob.glob("*.dist-info/RECORD"):
    for path, digest, _ in csv.reader(open(record)):
        if path.startswith("bulk") and path.endswith(".py"):
            found = base64.urlsafe_b64encode(hashlib.sha256(open(path, "rb").read()).digest()).rstrip(b"=").decode()
            whole += digest == f"sha256={found}"
print(whole)
END"""

Make = Callable[..., Sandbox]


@pytest.fixture
def make(server: LocalServer) -> Iterator[Make]:
    """Sandboxes under gVisor with so many MiB of memory, which the `e2b` package cannot ask for."""
    made: list[Sandbox] = []

    def one(memory_mb: int, **fields: Any) -> Sandbox:
        wanted = {"templateID": "base", "timeout": 600, "memoryMB": memory_mb, "runtime": "runsc", **fields}
        headers = {"X-API-KEY": server.api_key}
        answer = httpx.post(f"{server.api_url}/v2/sandboxes", json=wanted, headers=headers, timeout=60)
        assert answer.status_code == 201, answer.text
        made.append(Sandbox.connect(answer.json()["sandboxID"]))
        return made[-1]

    yield one
    for sandbox in made:
        sandbox.kill()


@pytest.mark.covers("S15")
def test_a_heap_of_a_gib_comes_back(make: Make) -> None:
    sandbox = make(2048)
    holding(sandbox, HEAP)
    asleep_and_back(sandbox)
    assert is_the_same(sandbox)


@pytest.mark.covers("S15")
def test_a_sandbox_at_its_memory_limit_comes_back(make: Make) -> None:
    sandbox = make(512)
    holding(sandbox, TO_THE_LIMIT)
    assert int(sandbox.files.read("/tmp/full")) > 256, "MiB that the program holds"
    asleep_and_back(sandbox)
    assert is_the_same(sandbox)
    assert sandbox.commands.run("echo fine").stdout == "fine\n"


@pytest.mark.covers("S15")
def test_an_installation_goes_on_where_it_was(make: Make) -> None:
    sandbox = make(1024)
    sandbox.files.write_files([{"path": f"/tmp/wheels/{name}", "data": data} for name, data in wheels().items()])
    names = " ".join(f"bulk{number}" for number in range(WHEELS))
    install = f"pip install --no-index --find-links /tmp/wheels --target /home/user/site {names}"
    installing = sandbox.commands.run(f"{install}; echo $? > /tmp/.ended; mv /tmp/.ended /tmp/ended", background=True)
    until(lambda: sandbox.commands.run("ls -d /tmp/pip-*; true").stdout, LONG_S, "it is at work")
    for _ in range(2):
        asleep_and_back(sandbox)
    until(lambda: sandbox.files.exists("/tmp/ended"), LONG_S, "it has ended")
    assert sandbox.files.read("/tmp/ended") == "0\n"
    assert sandbox.commands.run(CHECK_INSTALLED).stdout == f"{WHEELS * FILES_EACH}\n"
    installing.disconnect()


@pytest.mark.covers("S15", "S17")
def test_a_websocket_is_made_again_and_wakes_its_server_which_goes_on(make: Make, server: LocalServer) -> None:
    sandbox = make(512, autoPause=True, autoResume={"enabled": True})
    sandbox.files.write("/tmp/talker.py", TALKER)
    sandbox.commands.run("exec python3 /tmp/talker.py", background=True, timeout=0)
    before = until(lambda: counted(server, sandbox), LONG_S, "it answers")
    with websocket(server, sandbox) as kept:
        assert ask(kept) >= before
        sandbox.pause()
        with pytest.raises(ConnectionClosed):
            kept.recv(timeout=LONG_S)
    with websocket(server, sandbox) as again:  # its first request waits for the resume
        after = ask(again)
    assert before < after < before + 100 * LONG_S, "the same count goes on"


def holding(sandbox: Sandbox, script: str) -> None:
    """Start a program that fills its memory, and wait until it has."""
    sandbox.files.write("/tmp/program.py", script)
    sandbox.commands.run("exec python3 /tmp/program.py", background=True, timeout=0)
    until(lambda: sandbox.files.exists("/tmp/full"), LONG_S, "its memory is full")


def asleep_and_back(sandbox: Sandbox) -> None:
    assert sandbox.pause() is True
    sandbox.connect()


def is_the_same(sandbox: Sandbox) -> bool:
    sandbox.files.write("/tmp/check", "")
    until(lambda: sandbox.files.exists("/tmp/same"), LONG_S, "the program has looked")
    return sandbox.files.read("/tmp/same") == "True"


def wheels() -> dict[str, bytes]:
    """Packages of many small files, which nobody needs to download."""
    return {f"bulk{number}-1.0-py3-none-any.whl": wheel(f"bulk{number}") for number in range(WHEELS)}


def wheel(name: str) -> bytes:
    info, packed = f"{name}-1.0.dist-info", io.BytesIO()
    files = {f"{name}/m{number}.py": f"VALUE = {number}\n" * 40 for number in range(FILES_EACH)}
    files |= {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{path},sha256={digest(text)},{len(text)}" for path, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,"])
    with zipfile.ZipFile(packed, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return packed.getvalue()


def digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def websocket(server: LocalServer, sandbox: Sandbox) -> ClientConnection:
    headers = {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": "8000"}
    url = server.gateway_url.replace("http", "ws")
    # The talker answers no close, and nobody has to wait for that.
    return connect(url, additional_headers=headers, compression=None, open_timeout=LONG_S, close_timeout=0.1)


def ask(socket: ClientConnection) -> int:
    socket.send(b"now")
    return int(socket.recv(timeout=LONG_S))


def counted(server: LocalServer, sandbox: Sandbox) -> int:
    """0 while nothing listens there."""
    try:
        with websocket(server, sandbox) as socket:
            return ask(socket)
    except (InvalidStatus, ConnectionClosed):
        return 0
