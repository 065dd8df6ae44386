"""What the build of a template asks of guestd, through the client that the server uses."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.conformance.conftest import CONTROL, TOKEN
from tests.conformance.daemon import Daemon
from tests.conformance.processes import eventually
from warren.contracts.guest import CopyOrder, Door, Exit, Fate, GuestCommand
from warren.guest.workshop import GuestWorkshop
from warren.model import limits
from warren.model.errors import Timeout, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio
PATIENT_S = 30.0
SHOP = GuestWorkshop()


@pytest.fixture
def controlled(fresh: Daemon) -> Daemon:
    fresh.init(accessToken=TOKEN, controlToken=CONTROL, defaultUser="user")
    return fresh


@pytest.fixture
def first_process() -> Iterator[Daemon]:
    with Daemon.start(as_init=True) as daemon:
        daemon.init(accessToken=TOKEN, controlToken=CONTROL, defaultUser="user")
        yield daemon


def door(daemon: Daemon, **changes: str) -> Door:
    tokens = {"control_token": CONTROL, "access_token": TOKEN, **changes}
    return Door("127.0.0.1", port=daemon.port, **tokens)


async def run(daemon: Daemon, line: str, user: str = "root", deadline_s: float = PATIENT_S) -> tuple[Exit, list[str]]:
    lines: list[str] = []
    command = GuestCommand(("/bin/bash", "-c", line), user, "/", {"COLOUR": "red"})
    return await SHOP.run(door(daemon), command, lines.append, deadline_s), lines


async def test_a_command_s_lines_and_end_come_back(controlled: Daemon) -> None:
    ended, lines = await run(controlled, "echo $COLOUR; id -un >&2; printf end; exit 3", "user")
    assert ended == Exit(3)
    assert sorted(lines) == ["end", "red", "user"]
    assert (await run(controlled, "kill -9 $$"))[0] == Exit(137)


async def test_an_unknown_user_is_a_refusal_in_the_guest_s_words(controlled: Daemon) -> None:
    assert await run(controlled, "whoami", "root123") == (Exit(1, "unauthenticated: invalid username: 'root123'"), [])


async def test_output_is_bounded(controlled: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BUILD_STEP_LINES", 100)
    _, lines = await run(controlled, f"head -c 100000 /dev/zero | tr '\\0' x; echo; seq {limits.BUILD_STEP_LINES * 50}")
    assert len(lines) == 100
    assert lines[0] == "x" * limits.BUILD_LINE_MAX
    assert "left out" in lines[-1]


@pytest.mark.parametrize("by", ["deadline", "cancel"])
async def test_a_command_that_nobody_waits_for_is_killed(controlled: Daemon, by: str) -> None:
    pids: list[str] = []
    begun = asyncio.Event()

    def on_line(line: str) -> None:
        pids.append(line)
        begun.set()

    command = GuestCommand(("/bin/bash", "-c", "echo $$; sleep 1000"), "root", "/")
    if by == "deadline":
        with pytest.raises(Timeout):
            await SHOP.run(door(controlled), command, on_line, 1.0)
    else:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(SHOP.run(door(controlled), command, on_line, PATIENT_S))
            await begun.wait()
            task.cancel()
    eventually(lambda: not os.path.exists(f"/proc/{pids[0]}"), "the command has ended")


async def test_a_command_that_outlives_its_caller_goes_on(controlled: Daemon, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    begun = asyncio.Event()
    line = f"echo; while [ ! -e {tmp_path}/stop ]; do sleep 0.05; done; touch {tmp_path}/stopped"
    command = GuestCommand(("/bin/bash", "-c", line), "root", "/", fate=Fate.OUTLIVES)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(SHOP.run(door(controlled), command, lambda _: begun.set(), PATIENT_S))
        await begun.wait()
        task.cancel()
    (tmp_path / "stop").touch()
    eventually(lambda: (tmp_path / "stopped").exists(), "it went on")


async def test_an_archive_is_unpacked_where_it_belongs(controlled: Daemon, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    content = b"x" * 3_000_000
    with tarfile.open(archive, "w:gz") as file:
        entry = tarfile.TarInfo("src/big")
        entry.size = len(content)
        file.addfile(entry, io.BytesIO(content))
    order = CopyOrder(archive, "src", str(tmp_path / "new"), "user", "640")
    assert await SHOP.copy_in(door(controlled), order) == Exit(0)
    found = (tmp_path / "new" / "big").stat()
    assert (found.st_size, found.st_mode & 0o777) == (len(content), 0o640)
    refused = await SHOP.copy_in(door(controlled), CopyOrder(archive, "src", "/x", "root123"))
    assert refused == Exit(1, "unauthenticated: invalid username: 'root123'")
    refused = await SHOP.copy_in(door(controlled), CopyOrder(archive, "other", str(tmp_path), "user"))
    assert "nothing of it" in refused.refusal


async def test_a_folder_is_made_once(controlled: Daemon, tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"
    for _ in range(2):
        assert await SHOP.make_folder(door(controlled), str(place), "user") == Exit(0)
    assert place.owner() != "root"
    (tmp_path / "file").touch()
    assert (await SHOP.make_folder(door(controlled), str(tmp_path / "file"), "user")).code == 1


async def test_everything_but_the_guest_is_ended_between_steps(first_process: Daemon) -> None:
    await run(first_process, "setsid sleep 1000 > /dev/null 2>&1 & nohup sleep 1000 > /dev/null 2>&1 &")
    assert (await run(first_process, "pgrep -c sleep"))[1] != ["0"]
    await SHOP.settle(door(first_process))
    assert (await run(first_process, "pgrep -c sleep"))[1] == ["0"]


async def test_a_guest_that_is_no_first_process_ends_nothing(controlled: Daemon) -> None:
    with pytest.raises(Unavailable, match="not PID 1"):
        await SHOP.settle(door(controlled))


async def test_the_routes_of_a_build_take_the_control_token(controlled: Daemon) -> None:
    for method, path in (("POST", "/warren/copy"), ("POST", "/warren/settle"), ("GET", "/warren/tree?since=0")):
        answer = httpx.request(method, controlled.url + path, headers={"X-Access-Token": TOKEN})
        assert answer.status_code == 401, path
