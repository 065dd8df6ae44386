"""One guestd for the whole suite, fresh ones for tests that change it, and the client objects around it."""

from __future__ import annotations

import os
import signal
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from e2b import AsyncSandbox, Sandbox
from e2b.connection_config import ConnectionConfig
from packaging.version import Version

from .daemon import BINARY, FOLDERS, Daemon
from .processes import adopt_orphans, alive, children_of, command_line, eventually
from .wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
TOKEN = "conformance-token"
CONTROL = "conformance-control"
WIRE_LEVEL = "0.6.13"
TEST_TIMEOUT = 60  # seconds; a test that hangs is a finding, not a wait


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE not in item.path.parents:
            continue
        item.add_marker(pytest.mark.root)
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """The leak check: no process and no folder of this suite outlives it."""
    if not BINARY.exists():
        pytest.fail(f"cannot test {BINARY}: it is not built; run 'make -C guestd build'")
    if os.geteuid() != 0:
        pytest.skip("cannot start commands as other users; run the suite as root")
    adopt_orphans()
    before_folders = temporary_folders()
    before = set(children_of(os.getpid()))
    yield
    left = {pid: command_line(pid) for pid in children_of(os.getpid()) if pid not in before}
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    for pid in left:
        eventually(lambda pid=pid: not alive(pid), f"process {pid} has ended")
    assert not left, f"processes outlived the suite: {left}"
    assert temporary_folders() == before_folders


def temporary_folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob(f"{FOLDERS}*"))


@pytest.fixture(scope="session")
def shared_guest(nothing_left_behind: None) -> Iterator[Daemon]:
    with Daemon.start() as daemon:
        assert daemon.init(accessToken=TOKEN, defaultUser="user", envVars={"FROM_INIT": "yes"}).status_code == 204
        yield daemon


@pytest.fixture
def guest(shared_guest: Daemon) -> Iterator[Daemon]:
    """The shared guest; a test leaves it with no process of its own and alive."""
    yield shared_guest
    assert shared_guest.running, f"guestd died: {shared_guest.log()}"
    for pid in children_of(shared_guest.pid):
        try:
            eventually(lambda pid=pid: not alive(pid), "a process of the test has ended", 1.0)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def fresh(nothing_left_behind: None) -> Iterator[Daemon]:
    """A guest of the test's own that nobody has initialised."""
    with Daemon.start() as daemon:
        yield daemon


@pytest.fixture
def wire(guest: Daemon) -> Iterator[Wire]:
    caller = Wire(guest)
    yield caller
    caller.http.close()


@pytest.fixture
def fresh_wire(fresh: Daemon) -> Iterator[Wire]:
    caller = Wire(fresh)
    yield caller
    caller.http.close()


@pytest.fixture
def folder(guest: Daemon) -> Path:
    """An empty folder of the default user."""
    made = guest.home("user") / uuid.uuid4().hex[:12]
    made.mkdir()
    os.chown(made, 1000, 1000)
    return made


@pytest.fixture
def sandbox(guest: Daemon) -> Sandbox:
    return Sandbox(**options(guest))


@pytest.fixture
def async_sandbox(guest: Daemon) -> Callable[[], AsyncSandbox]:
    """Built inside the test, because the client binds itself to the running event loop."""
    return lambda: AsyncSandbox(**options(guest))


def options(daemon: Daemon) -> dict[str, Any]:
    """What the client would know about the sandbox after create, for one fixed address."""
    headers = {"E2b-Sandbox-Id": "conformance", "E2b-Sandbox-Port": "49983"}
    if daemon.token is not None:
        headers["X-Access-Token"] = daemon.token
    config = ConnectionConfig(sandbox_url=daemon.url, api_key="unused", debug=False, extra_sandbox_headers=headers)
    return {
        "sandbox_id": "conformance",
        "sandbox_domain": None,
        "envd_version": Version(WIRE_LEVEL),
        "envd_access_token": daemon.token,
        "traffic_access_token": None,
        "connection_config": config,
    }
