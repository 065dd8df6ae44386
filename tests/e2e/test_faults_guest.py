"""A guest that is stopped or talks nonsense: its sandbox says so within seconds, its streams end, `kill` works."""

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from e2b import Sandbox, SandboxException

from tests.e2e.cleanliness import nothing_left
from tests.e2e.local_server import LocalServer
from tests.e2e.waiting import until

NOTICED_S = 60
"""Seconds; on a quiet machine it takes about fifteen."""
ENDED_S = 10
WAYS = ("none", "garbage", "endless", "error", "hang-up", "never")
CASES = ("crun guest", "runsc guest", "runsc sentry")
DOOMED = "crun that dies later"


@dataclass
class Silenced:
    """One with a stopped guest; `ended` is set when the stream that was open to it has ended."""

    sandbox: Sandbox
    pid: int
    ended: threading.Event = field(default_factory=threading.Event)


def health_of(server: LocalServer, sandbox_id: str) -> str:
    url, headers = f"{server.api_url}/sandboxes/{sandbox_id}", {"X-API-KEY": server.api_key}
    return httpx.get(url, headers=headers, trust_env=False, timeout=30).json()["health"]


def messages(server: LocalServer, sandbox_id: str) -> list[str]:
    """Of the sandbox's log."""
    url, headers = f"{server.api_url}/v2/sandboxes/{sandbox_id}/logs", {"X-API-KEY": server.api_key}
    return [entry["message"] for entry in httpx.get(url, headers=headers, trust_env=False, timeout=30).json()["logs"]]


def ask_guest(server: LocalServer, sandbox_id: str) -> httpx.Response:
    headers = {"E2b-Sandbox-Id": sandbox_id, "E2b-Sandbox-Port": "49983"}
    return httpx.get(f"{server.gateway_url}/health", headers=headers, trust_env=False, timeout=60)


def silence(server: LocalServer, case: str) -> Silenced:
    runtime = case.split()[0]
    sandbox = Sandbox.create(timeout=600, api_headers={"X-Warren-Runtime": runtime})
    pid = server.placement(sandbox.sandbox_id)["pid"]
    assert isinstance(pid, int)
    silenced = Silenced(sandbox, pid)
    handle = sandbox.commands.run("sleep 900", background=True, timeout=0)

    def follow() -> None:
        with suppress(Exception):
            handle.wait()
        silenced.ended.set()

    threading.Thread(target=follow, daemon=True).start()
    if case == "runsc guest":
        with suppress(SandboxException, httpx.HTTPError):
            sandbox.commands.run("sudo kill -STOP 1", timeout=2, request_timeout=5)
    else:
        os.kill(pid, signal.SIGSTOP)
    return silenced


@dataclass
class Babel:
    """A server whose guests talk nonsense, each in its own way."""

    server: LocalServer
    boxes: dict[str, Sandbox]


@pytest.fixture(scope="module")
def babel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Babel]:
    """Told to take its sandboxes along when it stops."""
    folder = tmp_path_factory.mktemp("babel")
    guestd = shutil.copy(Path(__file__).with_name("silent_guest.py"), folder / "guestd")
    local = LocalServer(folder, pool_slots=2, runtime="crun", guestd_path=guestd, stop_sandboxes_on_exit="true")
    with nothing_left(local), local:
        yield Babel(local, {way: Sandbox.create(timeout=600, envs={"WAY": way}, **local.options) for way in WAYS})


@pytest.fixture(scope="module")
def silenced(server: LocalServer, babel: Babel) -> Iterator[Callable[[str], Silenced]]:
    """All of them at once, and after those of `babel`, so that their seconds of silence pass together."""
    assert babel
    made = {case: silence(server, case) for case in (*CASES, DOOMED)}
    yield made.__getitem__
    for each in made.values():
        with suppress(ProcessLookupError):
            os.kill(each.pid, signal.SIGCONT)
        each.sandbox.kill()


@pytest.mark.threat("E3")
@pytest.mark.parametrize("case", CASES)
def test_a_stopped_guest_is_marked_and_cut_off(
    server: LocalServer, silenced: Callable[[str], Silenced], case: str
) -> None:
    one = silenced(case)
    sandbox_id = one.sandbox.sandbox_id
    until(lambda: health_of(server, sandbox_id) == "unresponsive", NOTICED_S, "the silence is noticed")
    assert one.ended.wait(30), "its stream has ended"
    refused = ask_guest(server, sandbox_id)
    assert (refused.status_code, refused.headers["Should-Retry"]) == (502, "false")
    assert refused.json()["message"] == "The sandbox is running but its guest does not answer"
    assert not one.sandbox.is_running()
    shown = server.run("sandbox", "info", sandbox_id)
    assert "unresponsive" in shown.stdout
    assert "the guest does not answer" in messages(server, sandbox_id)


@pytest.mark.parametrize("case", ["crun guest", "runsc sentry"])
def test_a_guest_that_goes_on_is_heard_again(
    server: LocalServer, silenced: Callable[[str], Silenced], case: str
) -> None:
    one = silenced(case)
    until(lambda: health_of(server, one.sandbox.sandbox_id) == "unresponsive", NOTICED_S, "the silence is noticed")
    os.kill(one.pid, signal.SIGCONT)
    until(lambda: health_of(server, one.sandbox.sandbox_id) == "ok", NOTICED_S, "it is heard again")
    assert one.sandbox.commands.run("echo back").stdout == "back\n"
    os.kill(one.pid, signal.SIGSTOP)


@pytest.mark.threat("E3")
def test_a_sandbox_that_dies_after_its_guest_was_stopped_has_ended(
    server: LocalServer, silenced: Callable[[str], Silenced]
) -> None:
    one = silenced(DOOMED)
    sandbox_id = one.sandbox.sandbox_id
    until(lambda: health_of(server, sandbox_id) == "unresponsive", NOTICED_S, "the silence is noticed")
    os.kill(one.pid, signal.SIGKILL)
    until(lambda: "sandbox ended: died" in messages(server, sandbox_id), ENDED_S, "its end is noticed")
    assert one.sandbox.kill() is False


@pytest.mark.threat("E3")
@pytest.mark.parametrize("case", CASES)
def test_a_stopped_guest_can_be_killed(server: LocalServer, silenced: Callable[[str], Silenced], case: str) -> None:
    one = silenced(case)
    assert one.sandbox.kill() is True
    listed = [info.sandbox_id for info in Sandbox.list().next_items()]
    assert one.sandbox.sandbox_id not in listed


@pytest.mark.threat("E3")
@pytest.mark.parametrize("way", WAYS[1:])
def test_a_guest_that_talks_nonsense_is_as_good_as_none(babel: Babel, way: str) -> None:
    sandbox_id = babel.boxes[way].sandbox_id
    until(lambda: health_of(babel.server, sandbox_id) == "unresponsive", NOTICED_S, f"{way} is noticed")
    assert health_of(babel.server, babel.boxes["none"].sandbox_id) == "ok"


@pytest.mark.threat("E7")
def test_a_server_that_is_told_so_takes_its_sandboxes_along(babel: Babel) -> None:
    server, boxes = babel.server, babel.boxes
    assert boxes["never"].kill() is True
    server.stop()
    assert not list(Path("/run/warren", server.bridge, "sandboxes").glob("*"))
    server.start()
    assert Sandbox.list(**server.options).next_items() == []
    assert "sandbox ended: server_stopped" in messages(server, boxes["none"].sandbox_id)
