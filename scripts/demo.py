"""A tour through Warren with nothing but the `e2b` packages from the index; prints what it did and how long it took.

Starts a server unless one is running already, and stops the one that it started.
"""

import base64
import hashlib
import http.client
import itertools
import os
import re
import secrets
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TypeVar

from e2b import PtySize, Sandbox, SandboxQuery
from e2b_code_interpreter import Sandbox as Interpreter

WARREN = Path(sys.executable).with_name("warren")
START_DEADLINE_S = 120
STOP_DEADLINE_S = 60
PUBLIC_URL_DEADLINE_S = 20
COUNTING_DEADLINE_S = 20
LOG_LINES_SHOWN = 20
MIB = 1024 * 1024
COPIES = 3
COUNTING = """
import itertools, time
with open("counted", "a", buffering=1) as file:
    for number in itertools.count():
        file.write(f"{number} {time.time_ns()}\\n")
        time.sleep(0.01)
"""
"""The time beside each number tells apart what copies have in common from what each did by itself."""
DATA = Path(__file__).parent.parent / "examples" / "rabbits.csv"
PLOT = """
import matplotlib.pyplot as plt
import pandas as pd

frame = pd.read_csv("rabbits.csv", index_col="year")
axes = frame.plot(title="Rabbits on a small island", figsize=(8, 4.5), marker="o")
axes.set(xlabel="", ylabel="rabbits")
plt.show()
"""
Result = TypeVar("Result")
BOLD, DIM, GREEN, PLAIN = ("\033[1m", "\033[2m", "\033[32m", "\033[0m") if sys.stdout.isatty() else ("",) * 4


def main() -> None:
    with server():
        tour = Tour()
        try:
            tour.run()
        finally:
            tour.clean()
    print(f"\n{GREEN}Done.{PLAIN} `make serve` keeps a server running; README.md shows what to do with it.")


class Tour:
    """One sandbox from birth to death. Each step says what it did in one line."""

    def __init__(self) -> None:
        self.sandbox: Sandbox | None = None
        self.copies: list[Sandbox] = []
        self.plotter: Interpreter | None = None
        self.mark = f"demo-{secrets.token_hex(4)}"

    def run(self) -> None:
        box = step("create a sandbox under gVisor", self.create)
        step("write a file and run a command that reads it", lambda: read_back(box))
        step("stream output while a command runs", lambda: stream(box))
        step("open a terminal, resize it", lambda: terminal(box))
        step("upload 10 MB, download it again", lambda: transfer(box))
        step("start a web server inside, fetch its public URL", lambda: publish(box))
        step("set a timeout", lambda: prolong(box))
        step("start a Python interpreter that counts", lambda: start_counting(box))
        step("pause it: processes, memory and files go to disk", lambda: f"{box.pause()}; running: {box.is_running()}")
        step("resume it: the same process goes on", lambda: resume(box))
        step("fork it in three: each copy goes on from the same number", lambda: self.fork(box))
        step("list", self.list)
        plotter = step("create a sandbox that runs code", self.create_plotter)
        step("upload a data file, plot it inside, save the picture beside it", lambda: plot(plotter))
        step("kill", lambda: f"{box.kill()}; running: {box.is_running()}")

    def create(self) -> Sandbox:
        self.sandbox = Sandbox.create(
            timeout=120, metadata={"made-by": self.mark}, api_headers={"X-Warren-Runtime": "runsc"}
        )
        return self.sandbox

    def create_plotter(self) -> Interpreter:
        self.plotter = Interpreter.create(timeout=120, metadata={"made-by": self.mark})
        return self.plotter

    def list(self) -> str:
        found = Sandbox.list(query=SandboxQuery(metadata={"made-by": self.mark})).next_items()
        return ", ".join(f"{info.sandbox_id} {info.state.value}, {info.memory_mb} MB" for info in found)

    def fork(self, box: Sandbox) -> str:
        """Four interpreters that go on from the same number, each with an identity of its own."""
        results = box.fork(count=COPIES, timeout=60)
        self.copies = [copy for copy in results if isinstance(copy, Sandbox)]
        if len(self.copies) != COPIES:
            raise SystemExit(f"cannot fork it in three: {[str(one) for one in results if one not in self.copies]}")
        for one in self.copies:
            goes_on(one)
        histories = [counted(one) for one in (box, *self.copies)]
        alike = itertools.takewhile(lambda lines: len(set(lines)) == 1, zip(*histories, strict=False))
        shared = sum(1 for _ in alike)
        told = [f"it had come to {number_of(histories[0][shared - 1])} at the fork; from there each counts by itself:"]
        for one, history in zip((box, *self.copies), histories, strict=True):
            name, address = one.commands.run("hostname; hostname -I").stdout.split()
            told.append(f"{name} {address} went on with {number_of(history[shared])}, is at {count(one)}")
        return "\n".join(told)

    def clean(self) -> None:
        for one in (self.sandbox, self.plotter, *self.copies):
            if one is not None:
                one.kill()


def read_back(box: Sandbox) -> str:
    box.files.write("poem.txt", "A warren has many rooms, and no two are alike.\n")
    return box.commands.run("cat poem.txt && wc -c < poem.txt").stdout


def stream(box: Sandbox) -> str:
    started, heard = time.monotonic(), list[str]()
    box.commands.run(
        "for word in one two three; do echo $word; sleep 0.3; done",
        on_stdout=lambda text: heard.append(f"{text.strip()} at {time.monotonic() - started:.1f} s"),
    )
    return ", ".join(heard)


def terminal(box: Sandbox) -> str:
    handle = box.pty.create(PtySize(rows=24, cols=80))
    box.pty.resize(handle.pid, PtySize(rows=40, cols=132))
    box.pty.send_stdin(handle.pid, b"echo user=$(whoami) size=$(stty size | tr ' ' x) tty=$(tty); exit\n")
    shown = bytearray()
    handle.wait(on_pty=shown.extend)
    answer = re.search(rb"user=\w+ size=\d+x\d+ tty=/\S+", shown)
    return answer.group().decode() if answer else repr(bytes(shown))


def transfer(box: Sandbox) -> str:
    data = secrets.token_bytes(10 * MIB)
    up = timed(lambda: box.files.write("large.bin", data))
    inside = box.commands.run("sha256sum large.bin").stdout.split()[0]
    came_back = bytearray()
    down = timed(lambda: came_back.extend(box.files.read("large.bin", format="bytes")))
    same = inside == hashlib.sha256(data).hexdigest() == hashlib.sha256(came_back).hexdigest()
    return f"up {10 / up:.0f} MiB/s, down {10 / down:.0f} MiB/s, {'same digest' if same else 'DIGESTS DIFFER'}"


def publish(box: Sandbox) -> str:
    box.files.write("site/index.html", "<h1>hello from inside</h1>")
    box.commands.run("python3 -m http.server 8000 --directory site", background=True, timeout=0)
    host = box.get_host(8000)
    deadline = time.monotonic() + PUBLIC_URL_DEADLINE_S
    while True:
        status, body = fetch(host)
        if status == 200 or time.monotonic() > deadline:
            return f"https://{host}/ -> {status} {body}"
        time.sleep(0.1)


def fetch(host: str) -> tuple[int, str]:
    """GET / of a public host over TLS. Its name needs no DNS here: it is this machine."""
    name, _, port = host.partition(":")
    context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
    connection = http.client.HTTPSConnection(name, int(port or 443), timeout=10, context=context)
    connection.sock = context.wrap_socket(
        socket.create_connection(("127.0.0.1", int(port or 443)), timeout=10), server_hostname=name
    )
    try:
        connection.request("GET", "/", headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def prolong(box: Sandbox) -> str:
    before = box.get_info().end_at
    box.set_timeout(600)
    after = box.get_info().end_at
    left = (after - datetime.now(UTC)).total_seconds()
    return f"ends at {after:%H:%M:%S} instead of {before:%H:%M:%S}, {left:.0f} s from now"


def start_counting(box: Sandbox) -> str:
    box.files.write("count.py", COUNTING)
    box.commands.run("exec python3 count.py", background=True, timeout=0)
    deadline = time.monotonic() + COUNTING_DEADLINE_S
    while not box.files.exists("counted") and time.monotonic() < deadline:
        time.sleep(0.05)
    return f"it is at {goes_on(box)}"


def counted(box: Sandbox) -> list[str]:
    """All whole lines so far, oldest first."""
    return box.files.read("counted").split("\n")[:-1]


def number_of(line: str) -> int:
    return int(line.split()[0])


def count(box: Sandbox) -> int:
    lines = counted(box)
    return number_of(lines[-1]) if lines else -1


def goes_on(box: Sandbox) -> int:
    """Where it has come to, having been seen to count: what it wrote before it slept would be there anyway."""
    before, deadline = count(box), time.monotonic() + COUNTING_DEADLINE_S
    while (now := count(box)) == before:
        if time.monotonic() > deadline:
            raise SystemExit(f"cannot see {box.sandbox_id} count: it stands still at {before}")
        time.sleep(0.05)
    return now


def resume(box: Sandbox) -> str:
    Sandbox.connect(box.sandbox_id, timeout=600)
    now, history = goes_on(box), counted(box)
    times = [int(line.split()[1]) for line in history]
    slept_ns, at = max((after - before, at) for at, (before, after) in enumerate(itertools.pairwise(times)))
    return f"it slept {slept_ns / 1e9:.1f} s after {number_of(history[at])}, is at {now}"


def plot(box: Interpreter) -> str:
    """The data file comes from the examples; the picture is drawn by code that runs in the sandbox."""
    box.files.write("rabbits.csv", DATA.read_bytes())
    drawn = box.run_code(PLOT)
    picture = next((result.png for result in drawn.results if result.png), None)
    if picture is None:
        return f"no picture: {drawn.error.value if drawn.error else 'nothing was drawn'}"
    target = DATA.with_suffix(".png")
    target.write_bytes(base64.b64decode(picture))
    return f"{target.relative_to(Path.cwd()) if target.is_relative_to(Path.cwd()) else target}"


def step(what: str, action: Callable[[], Result]) -> Result:
    """Do one thing; show its time, and under it what came of it."""
    print(f"{BOLD}{what}{PLAIN}", flush=True)
    started = time.perf_counter()
    result = action()
    took = time.perf_counter() - started
    shown = describe(result)
    lines = shown.strip().splitlines() or [""]
    print(f"{GREEN}{took * 1000:7.0f} ms{PLAIN}  {lines[0]}")
    for line in lines[1:]:
        print(f"{'':10}  {line}")
    return result


def describe(result: object) -> str:
    """A sandbox introduces itself; everything else is told already."""
    if not isinstance(result, Sandbox):
        return str(result)
    kernel = result.commands.run("uname -sr; dmesg 2> /dev/null | grep -i gvisor || true").stdout
    return f"{result.sandbox_id}\n{kernel}"


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


@contextmanager
def server() -> Iterator[None]:
    """A running server, and the variables by which the client finds it."""
    os.environ.update(client_environment())
    if answers():
        print(f"{DIM}using the server that runs at {os.environ['E2B_API_URL']}{PLAIN}\n")
        yield
        return
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [WARREN, "serve"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            took = timed(lambda: wait_until_it_answers(process, log))
            print(f"{DIM}started a server at {os.environ['E2B_API_URL']} in {took:.1f} s{PLAIN}\n")
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_DEADLINE_S)


def client_environment() -> dict[str, str]:
    """What `eval "$(warren env)"` sets."""
    said = subprocess.run([WARREN, "env"], stdout=subprocess.PIPE, text=True, timeout=START_DEADLINE_S, check=False)
    if said.returncode != 0:
        raise SystemExit("cannot find out how to reach the server: `warren env` failed, see above")
    words = (word for line in said.stdout.splitlines() for word in shlex.split(line, comments=True))
    return dict(word.split("=", 1) for word in words if "=" in word)


def answers() -> bool:
    try:
        with urllib.request.urlopen(os.environ["E2B_API_URL"] + "/health", timeout=2) as answer:
            return answer.status in (200, 204)
    except (urllib.error.URLError, OSError):
        return False


def wait_until_it_answers(process: subprocess.Popen[bytes], log: IO[str]) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while not answers():
        if process.poll() is not None or time.monotonic() > deadline:
            log.seek(0)
            print("".join(log.readlines()[-LOG_LINES_SHOWN:]), file=sys.stderr)
            raise SystemExit("cannot start the server: its last words are above; `warren doctor` may know why")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
