"""Pause and resume: what is kept, what is not, who may wake it, and what a killed server leaves."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from e2b import (
    CommandHandle,
    Sandbox,
    SandboxException,
    SandboxNotFoundException,
    SandboxQuery,
    SandboxState,
    ServiceBusyException,
)
from e2b.exceptions import GuestUnresponsiveException

from tests.e2e.local_server import LocalServer
from tests.e2e.waiting import until

Create = Callable[..., Sandbox]
BOOT_ID = "/proc/sys/kernel/random/boot_id"
LONG_S = 40.0
AT_ONCE = 8
NAP_S, CLOCK_S = 5.0, 1.0
"""Long enough asleep for a clock that stood still meanwhile to be wrong by more than it may be."""

COUNTER = """
import http.server, itertools, threading
count = itertools.count()
reached = [0]
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = str(reached[0]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
import time
while True:
    reached[0] = next(count)
    time.sleep(0.01)
"""
KEPT_OPEN = """
import os, socket, time
s = socket.create_connection(("127.0.0.1", 8000))
while True:
    s.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    answer = s.recv(4096)
    assert answer.endswith(b"\\n") or answer, "the connection broke"
    open("/tmp/seeing", "w").write(str(time.time()))
    os.replace("/tmp/seeing", "/tmp/seen")
    time.sleep(0.05)
"""


def start(sandbox: Sandbox, script: str, name: str) -> CommandHandle:
    sandbox.files.write(f"/tmp/{name}.py", script)
    return sandbox.commands.run(f"exec python3 -u /tmp/{name}.py", background=True, timeout=0)


def reached(server: LocalServer, sandbox: Sandbox) -> int:
    answer = through_gateway(server, sandbox, 8000)
    assert answer.status_code == 200, answer.text
    return int(answer.text)


def through_gateway(server: LocalServer, sandbox: Sandbox, port: int, **headers: str) -> httpx.Response:
    names = {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": str(port)}
    return httpx.get(f"{server.gateway_url}/", headers={**names, **headers}, timeout=90)


def counts(server: LocalServer, sandbox: Sandbox) -> bool:
    return through_gateway(server, sandbox, 8000).status_code == 200 and reached(server, sandbox) > 0


def answers(server: LocalServer, sandbox: Sandbox) -> bool:
    headers = {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": "49983"}
    try:
        return httpx.get(f"{server.gateway_url}/health", headers=headers, timeout=3).status_code == 204
    except httpx.TimeoutException:
        return False


def clock_is_right(sandbox: Sandbox) -> bool:
    """By what `KEPT_OPEN` has written of late."""
    asked_at = time.time()
    return asked_at - CLOCK_S < float(sandbox.files.read("/tmp/seen") or 0) < time.time() + CLOCK_S


def address_of(server: LocalServer, sandbox: Sandbox) -> object:
    return server.placement(sandbox.sandbox_id)["address"]


def noted(server: LocalServer, sandbox: Sandbox, words: str) -> list[datetime]:
    """When its log says that."""
    url = f"{server.api_url}/v2/sandboxes/{sandbox.sandbox_id}/logs"
    logs = httpx.get(url, headers={"X-API-KEY": server.api_key}, timeout=30).json()["logs"]
    return [datetime.fromisoformat(entry["timestamp"]) for entry in logs if words in entry["message"]]


def paused_ids(**query: Any) -> set[str]:
    pages = Sandbox.list(query=SandboxQuery(state=[SandboxState.PAUSED], **query))
    return {info.sandbox_id for info in pages.next_items()}


def detail(server: LocalServer, sandbox: Sandbox) -> dict[str, Any]:
    url = f"{server.api_url}/sandboxes/{sandbox.sandbox_id}"
    return httpx.get(url, headers={"X-API-KEY": server.api_key}, timeout=30).json()


@pytest.mark.covers("S07", "S11", "S15")
def test_a_full_pause_keeps_processes_memory_files_and_loopback(server: LocalServer, create: Create) -> None:
    sandbox = create(metadata={"kept": "yes"}, envs={"KEPT": "too"})
    counter = start(sandbox, COUNTER, "counter")
    until(lambda: counts(server, sandbox), LONG_S, "the counter serves")
    start(sandbox, KEPT_OPEN, "open")
    until(lambda: sandbox.files.exists("/tmp/seen"), LONG_S, "a loopback connection is open")
    boot_id, before, address = sandbox.files.read(BOOT_ID), reached(server, sandbox), address_of(server, sandbox)
    assert sandbox.pause() is True
    assert sandbox.pause() is False
    assert not sandbox.is_running()
    assert sandbox.sandbox_id in paused_ids()
    found = detail(server, sandbox)
    place = "disk" if found["runtime"] == "runsc" else "memory"
    assert (found["state"], found["pauseMode"], found["pausedIn"]) == ("paused", "full", place)
    time.sleep(NAP_S if place == "disk" else 0)
    back = Sandbox.connect(sandbox.sandbox_id)
    asked_at = time.time()
    said_at = float(back.commands.run("date +%s.%N").stdout)
    assert asked_at - CLOCK_S < said_at < time.time() + CLOCK_S
    assert (address_of(server, back) == address) is (place == "memory"), "from the disk it comes back at another one"
    assert back.files.read(BOOT_ID) == boot_id
    assert counter.pid in {process.pid for process in back.commands.list()}
    after = reached(server, back)
    assert before <= after < before + 6000, "it went on from where it was"
    seen = float(back.files.read("/tmp/seen"))
    until(lambda: float(back.files.read("/tmp/seen") or 0) > seen, LONG_S, "the connection inside goes on")
    until(lambda: clock_is_right(back), LONG_S, "so does the clock that a program sees")
    assert back.commands.run("echo $KEPT").stdout == "too\n"
    assert back.get_info().metadata == {"kept": "yes"}
    assert sandbox.commands.run("echo same token").stdout == "same token\n"


@pytest.mark.covers("S07", "S16")
def test_a_pause_of_files_alone_boots_again(server: LocalServer, create: Create) -> None:
    sandbox = create(envs={"KEPT": "the environment"})
    boot_id, machine_id = sandbox.files.read(BOOT_ID), sandbox.files.read("/etc/machine-id")
    sandbox.files.write("/home/user/work", "done")
    asleep = sandbox.commands.run("exec sleep 1000", background=True, timeout=0)
    assert Sandbox.pause(sandbox.sandbox_id, mode="filesystem") is True
    assert detail(server, sandbox)["pauseMode"] == "filesystem"
    back = Sandbox.connect(sandbox.sandbox_id)
    assert back.files.read(BOOT_ID) != boot_id
    assert back.files.read("/etc/machine-id") == machine_id
    assert back.files.read("/home/user/work") == "done"
    assert asleep.pid not in {process.pid for process in back.commands.list()}
    assert back.commands.run("echo $KEPT").stdout == "the environment\n"
    assert not back.files.exists("/var/lib/guestd/envs.json", user="root")


@pytest.mark.covers("S07")
def test_a_memory_pause_can_be_booted_from_its_files(create: Create, runtime: str) -> None:
    sandbox = create(envs={"KEPT": "yes"})
    boot_id = sandbox.files.read(BOOT_ID)
    sandbox.files.write("/home/user/work", "done")
    sandbox.pause()
    if runtime == "crun":  # frozen in memory: there are no files apart from it
        with pytest.raises(SandboxException, match="cannot boot"):
            Sandbox.connect(sandbox.sandbox_id, on_resume="reboot")
        return
    back = Sandbox.connect(sandbox.sandbox_id, on_resume="reboot")
    assert back.files.read(BOOT_ID) != boot_id
    assert (back.files.read("/home/user/work"), back.commands.run("echo $KEPT").stdout) == ("done", "yes\n")


@pytest.mark.covers("S08", "S17")
def test_the_deadline_pauses_and_traffic_wakes(server: LocalServer, create: Create) -> None:
    lifecycle = {"on_timeout": "pause", "auto_resume": True}
    sandbox = create(timeout=60, lifecycle=lifecycle)
    info = sandbox.get_info()
    assert info.lifecycle == lifecycle
    start(sandbox, COUNTER, "counter")
    until(lambda: counts(server, sandbox), LONG_S, "the counter serves")
    sandbox.set_timeout(0)
    until(lambda: Sandbox.get_info(sandbox.sandbox_id).state is SandboxState.PAUSED, LONG_S, "it is paused")
    began = datetime.now(UTC)
    with ThreadPoolExecutor(AT_ONCE) as visitors:
        answers = list(visitors.map(lambda _: through_gateway(server, sandbox, 8000), range(AT_ONCE)))
    assert [answer.status_code for answer in answers] == [200] * AT_ONCE
    assert len(noted(server, sandbox, "sandbox resumed")) == 1, "the others joined the first"
    info = Sandbox.get_info(sandbox.sandbox_id)
    assert info.state is SandboxState.RUNNING
    assert (info.end_at - began).total_seconds() > 290, "the floor of a wake by traffic"
    sandbox.pause()
    assert sandbox.commands.run("echo woken").stdout == "woken\n"


@pytest.mark.covers("S17")
def test_a_deadline_that_nobody_moves_pauses_and_not_before(server: LocalServer, create: Create) -> None:
    """How soon after it is the bench's to say."""
    sandbox = create(timeout=2, lifecycle={"on_timeout": "pause"})
    pid, due = start(sandbox, COUNTER, "counter").pid, sandbox.get_info().end_at
    (paused_at,) = until(lambda: noted(server, sandbox, "by deadline"), LONG_S, "it is paused")
    assert paused_at >= due
    assert sandbox.sandbox_id in paused_ids()
    assert pid in {process.pid for process in Sandbox.connect(sandbox.sandbox_id).commands.list()}


@pytest.mark.covers("S17")
@pytest.mark.threat("D1")
def test_only_the_right_token_wakes(server: LocalServer, create: Create) -> None:
    sandbox = create(lifecycle={"on_timeout": "pause", "auto_resume": True}, network={"allow_public_traffic": False})
    deaf = create()
    for each in (sandbox, deaf):
        each.pause()
    assert through_gateway(server, deaf, 8000).status_code == 502
    for port, headers in ((8000, {}), (8000, {"E2b-Traffic-Access-Token": "wrong"}), (49983, {"X-Access-Token": "no"})):
        assert through_gateway(server, sandbox, port, **headers).status_code == 403
    assert {sandbox.sandbox_id, deaf.sandbox_id} <= paused_ids()
    token = sandbox.traffic_access_token
    assert token is not None
    answer = through_gateway(server, sandbox, 8000, **{"E2b-Traffic-Access-Token": token})
    assert (answer.status_code, "port is not open" in answer.text) == (502, True), "awake, and nothing listens"
    assert Sandbox.get_info(sandbox.sandbox_id).state is SandboxState.RUNNING


@pytest.mark.covers("S17")
@pytest.mark.threat("D1")
def test_a_signed_url_wakes_for_its_file_alone_and_while_it_holds(server: LocalServer, create: Create) -> None:
    sandbox = create(lifecycle={"on_timeout": "pause", "auto_resume": True})
    sandbox.files.write("/tmp/signed", "kept")
    good, old = (httpx.URL(sandbox.download_url("/tmp/signed", use_signature_expiration=n)) for n in (600, 1))
    sandbox.pause()
    time.sleep(2)  # a signature counts in seconds of the clock

    def visit(url: httpx.URL) -> httpx.Response:
        names = {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": "49983"}
        return httpx.get(f"{server.gateway_url}{url.raw_path.decode()}", headers=names, timeout=90)

    for refused in (old, good.copy_with(path="/health")):
        assert visit(refused).status_code == 403
    assert sandbox.sandbox_id in paused_ids()
    assert visit(good).text == "kept"


@pytest.mark.covers("S16", "S18")
def test_a_guest_that_does_not_answer(server: LocalServer, create: Create, runtime: str) -> None:
    if runtime == "crun":
        pytest.skip("Linux does not stop the first process of a namespace")
    sandbox = create()
    sandbox.files.write("/home/user/work", "done")
    stopping = sandbox.commands.run("sudo kill -STOP 1", background=True)
    until(lambda: not answers(server, sandbox), LONG_S, "the guest stands still")
    with pytest.raises(ServiceBusyException):
        Sandbox.pause(sandbox.sandbox_id, strict=True)
    with pytest.raises(ServiceBusyException):
        Sandbox.pause(sandbox.sandbox_id, mode="filesystem")
    assert Sandbox.pause(sandbox.sandbox_id) is True
    assert Sandbox.get_info(sandbox.sandbox_id).envd_unresponsive_at_pause is True
    with pytest.raises(GuestUnresponsiveException):
        Sandbox.connect(sandbox.sandbox_id)
    back = Sandbox.connect(sandbox.sandbox_id, on_resume="reboot")
    assert back.files.read("/home/user/work") == "done"
    stopping.disconnect()


@pytest.mark.covers("S09")
def test_kill_ends_what_sleeps(create: Create) -> None:
    sandbox = create()
    sandbox.pause()
    assert Sandbox.kill(sandbox.sandbox_id) is True
    assert Sandbox.kill(sandbox.sandbox_id) is False
    with pytest.raises(SandboxNotFoundException):
        Sandbox.connect(sandbox.sandbox_id)


def test_what_ends_with_the_machine_is_refused_to_those_who_want_it_durable(
    server: LocalServer, create: Create, runtime: str
) -> None:
    sandbox = create()
    answer = httpx.post(
        f"{server.api_url}/sandboxes/{sandbox.sandbox_id}/pause",
        json={"durable": True},
        headers={"X-API-KEY": server.api_key},
        timeout=60,
    )
    assert answer.status_code == (204 if runtime == "runsc" else 400), answer.text
    if runtime == "crun":
        assert "cannot keep memory on disk under crun" in answer.json()["message"]
        assert sandbox.is_running()
