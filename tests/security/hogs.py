"""A sandbox at its worst, each kind in one program for its Python; and what that costs a neighbour.

Each says `going` once it is under way, and goes on until it is ended, whatever its limits answer.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import NamedTuple

from e2b import Sandbox

from bench.samples import milliseconds
from bench.warren_target import WarrenBox

SAMPLES = 15
WARM_UP = 3

_FOREVER = """
import os, socket, sys, time
def going(): print("going", flush=True)
def spread(what, times):
    for _ in range(times):
        if os.fork() == 0: what()
"""
HOGS = {
    "processors": "def spin():\n    while True: pass\nspread(spin, 16); going(); spin()",
    "memory": """
going()
while True:
    if os.fork() == 0:
        held = bytearray()
        while True: held += b"x" * (16 << 20)
    os.wait()
""",
    "processes": "going(); os.execvp('bash', ['bash', '-c', ':(){ :|:& };:; sleep 600'])",
    "disk": """
going()
while True:
    with open("/home/user/filler", "wb", 0) as file:
        try:
            while True: file.write(bytes(1 << 20))
        except OSError: pass
""",
    "inodes": """
going(); os.makedirs("/home/user/many", exist_ok=True); made = 0
while True:
    try: open(f"/home/user/many/{made}", "w").close(); made += 1
    except OSError:
        for name in range(made): os.unlink(f"/home/user/many/{name}")
        made = 0
""",
    "page cache": """
with open("/home/user/cached", "wb") as file:
    for _ in range(1400): file.write(bytes(1 << 20))
going()
while True:
    with open("/home/user/cached", "rb") as file:
        while file.read(1 << 20): pass
""",
    "output": "going()\nwhile True: os.write(1, bytes(1 << 16))",
    "packets": """
gateway = open("/proc/net/route").read().split("\\n")
gateway = socket.inet_ntoa(bytes.fromhex(next(l.split()[2] for l in gateway[1:] if l.split()[1] == "0" * 8))[::-1])
def flood():
    wire = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    while True:
        try: wire.sendto(bytes(64), (gateway, 9))
        except OSError: pass
spread(flood, 8); going(); flood()
""",
    "sockets": """
listener = socket.create_server(("127.0.0.1", 0), backlog=4096); held = []
def meet(): held.extend((socket.create_connection(listener.getsockname(), 1), listener.accept()[0]))
try:
    while len(held) < 20000: meet()
except OSError: pass
going()
while True:
    held.pop().close(); held.pop().close(); meet()
""",
    "socket buffers": """
listener = socket.create_server(("127.0.0.1", 0), backlog=4096); held = []
def fill(wire):
    try:
        while True: wire.send(bytes(1 << 18))
    except OSError: pass
try:
    while len(held) < 500:
        ours = socket.create_connection(listener.getsockname()); held.append((ours, listener.accept()[0]))
        for end in held[-1]: end.setblocking(False)
        fill(ours)
except OSError: pass
going()
while True:
    for ours, theirs in held:
        try: theirs.recv(1 << 20)
        except OSError: pass
        fill(ours)
""",
    "watches": """
import ctypes
libc = ctypes.CDLL(None); instances = []
while (instance := libc.inotify_init1(0o4000)) >= 0: instances.append(instance)
for instance in instances: libc.inotify_add_watch(instance, b"/home/user", 0xFFF)
going()
while True:
    with open("/home/user/watched", "w") as file: file.write("x")
""",
    "terminals": """
import tty
held = []
try:
    while True: held.append(os.openpty())
except OSError: going()
ours, theirs = held[0]
tty.setraw(theirs)
while True:
    os.write(ours, b"x" * 64); os.read(theirs, 4096)
""",
}
"""Kind -> program that goes on inside."""
LOG_SPAM = """
import json, os, sys, threading
from e2b import Sandbox
os.nice(19)  # a client elsewhere takes no processor of this machine
hog = Sandbox.connect(sys.argv[1], **json.loads(sys.argv[2]))
def start_and_end():
    while True: hog.commands.run("true " + "x" * 3000)
hog.commands.run("true")
print("going", flush=True)
for _ in range(4): threading.Thread(target=start_and_end).start()
"""
"""A client that fills the log of a sandbox as fast as the API lets it."""
PLACE = "/tmp/hog.py"


class Times(NamedTuple):
    """Milliseconds of `true` in a sandbox, beside nothing and beside a hog."""

    idle: float
    beside: float

    @property
    def ratio(self) -> float:
        return self.beside / self.idle


def let_loose(hog: Sandbox, kind: str) -> Callable[[], None]:
    """Start one, and wait until it is at work. Returns what ends it."""
    hog.files.write(PLACE, _FOREVER + HOGS[kind])
    handle = hog.commands.run(f"exec python3 {PLACE}", background=True, timeout=0)
    next(iter(handle))
    handle.disconnect()
    return lambda: handle.kill() and None


def spam_log(hog: Sandbox, options: Mapping[str, str]) -> Callable[[], None]:
    """The same for the client that fills its log."""
    arguments = [sys.executable, "-c", LOG_SPAM, hog.sandbox_id, json.dumps(dict(options))]
    client = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert client.stdout is not None
    assert client.stdout.readline() == b"going\n"

    def end() -> None:
        client.kill()
        client.communicate()

    return end


def beside(quiet: Sandbox, begin: Callable[[], Callable[[], None]]) -> Times:
    """What `true` takes in a sandbox while something goes on beside it, and before and after."""
    box = WarrenBox(quiet)
    before = _median(box)
    end = begin()
    try:
        during = _median(box)
    finally:
        end()
    return Times(max(before, _median(box)), during)


def _median(box: WarrenBox) -> float:
    taken = [milliseconds(box.true) for _ in range(WARM_UP + SAMPLES)]
    return statistics.median(taken[WARM_UP:])
