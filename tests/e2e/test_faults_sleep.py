"""Checkpoints and a disk that fails them: the sandbox runs or sleeps, is never lost, and says what it can do."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2b import Sandbox, SandboxException, SandboxState
from e2b.exceptions import ServiceBusyException

from tests.e2e.cleanliness import nothing_left
from tests.e2e.local_server import LocalServer
from tests.e2e.small_disk import (
    PLENTY_MB,
    checkpoints,
    fill,
    on_a_disk_of_its_own,
    resize,
    room_until_it_is_written,
    spoil,
)
from tests.e2e.waiting import until

pytestmark = [pytest.mark.threat("E5"), pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes need root")]
FOLDER_MB = 160


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """Its state folder is on a small disk."""
    server = LocalServer(tmp_path_factory.mktemp("small"), pool_slots=2, disk_overcommit=1000)
    with on_a_disk_of_its_own(server, 2 * FOLDER_MB), nothing_left(server), server:
        yield server


def at_work(server: LocalServer, runtime: str = "runsc") -> tuple[Sandbox, int]:
    """A sandbox with a file, and the pid of a command that goes on."""
    sandbox = Sandbox.create(timeout=600, api_headers={"X-Warren-Runtime": runtime}, **server.options)
    sandbox.files.write("/home/user/work", "done")
    return sandbox, sandbox.commands.run("exec sleep 1000", background=True, timeout=0).pid


def test_a_pause_without_room_for_it_is_refused_and_the_sandbox_goes_on(small: LocalServer) -> None:
    sandbox, pid = at_work(small)
    filler = small.state / "filler"
    fill(filler)
    with pytest.raises(SandboxException, match=r"507.*cannot"):
        sandbox.pause()
    assert checkpoints(small) == []
    assert sandbox.commands.run("cat /home/user/work").stdout == "done"
    filler.unlink()
    until(lambda: _pauses(sandbox), 60, "with room again it sleeps")
    assert pid in {process.pid for process in sandbox.connect().commands.list()}
    assert sandbox.kill() is True


@pytest.mark.parametrize(
    ("runtime", "place", "mode"),
    [("runsc", "/dev/shm", "full"), ("runsc", "/home/user", "filesystem"), ("crun", "/home/user", "filesystem")],
)
def test_a_disk_that_fills_up_halfway_takes_the_pause_back_and_the_sandbox_goes_on(
    small: LocalServer, runtime: str, place: str, mode: str
) -> None:
    resize(small, PLENTY_MB)
    sandbox, _ = at_work(small, runtime)
    large = f"sha256sum {place}/large"
    said = sandbox.commands.run(f"head -c 48M /dev/urandom > {place}/large && {large}").stdout
    assert _pauses(sandbox, mode)  # by now it is on the disk, what follows is a matter of the checkpoint alone
    pid = sandbox.connect().commands.run("exec sleep 1000", background=True, timeout=0).pid
    until(lambda: not checkpoints(small), 30, "what woke it is forgotten")
    with room_until_it_is_written(small):
        with pytest.raises(SandboxException, match=r"507.*cannot"):
            sandbox.pause(mode=mode, retries=0)
        assert checkpoints(small) == []
        assert sandbox.commands.run(large).stdout == said
        assert pid in {process.pid for process in sandbox.commands.list()}
    until(lambda: _pauses(sandbox, mode), 60, "with room again it sleeps")
    assert sandbox.connect().commands.run(large).stdout == said
    assert sandbox.kill() is True
    resize(small, 2 * FOLDER_MB)


def _pauses(sandbox: Sandbox, mode: str = "full") -> bool:
    try:
        return sandbox.pause(mode=mode)
    except (SandboxException, ServiceBusyException):  # busy: its server has not yet found that there is room
        return False


@pytest.mark.parametrize(("runtime", "mode"), [("runsc", "full"), ("crun", "filesystem")])
def test_what_was_kept_is_gone_from_the_disk_when_its_end_is_answered(
    small: LocalServer, runtime: str, mode: str
) -> None:
    sandbox, _ = at_work(small, runtime)
    taken = sandbox.create_snapshot()
    (snapshot,) = checkpoints(small)
    assert sandbox.pause(mode=mode) is True
    assert len(checkpoints(small)) == 2
    assert sandbox.kill() is True
    assert checkpoints(small) == [snapshot]
    with Sandbox.create(taken.snapshot_id, timeout=600, **small.options) as copy:
        assert copy.files.read("/home/user/work") == "done"
    assert Sandbox.delete_snapshot(taken.snapshot_id, **small.options) is True
    assert checkpoints(small) == []


@pytest.mark.parametrize("damage", ["flipped", "truncated"])
def test_what_a_damaged_checkpoint_cannot_give_back_is_refused_by_name_and_its_files_start(
    small: LocalServer, damage: str
) -> None:
    sandbox, _ = at_work(small)
    assert sandbox.pause() is True
    (checkpoint,) = checkpoints(small)
    image = max((path for path in (checkpoint / "memory").iterdir()), key=lambda path: path.stat().st_size)
    spoil(image, damage)
    small.kill()
    small.start()
    why = f"cannot use checkpoint {checkpoint.name}: .*(damaged|cannot be read).*files alone"
    with pytest.raises(SandboxException, match=why):
        sandbox.connect()
    assert Sandbox.get_info(sandbox.sandbox_id, **small.options).state is SandboxState.PAUSED
    back = sandbox.connect(on_resume="reboot")
    assert back.files.read("/home/user/work") == "done"
    assert checkpoints(small) == []
    assert back.kill() is True


def test_what_another_version_wrote_sleeps_until_that_version_is_back_or_starts_from_its_files(
    small: LocalServer,
) -> None:
    sandbox, pid = at_work(small)

    def asleep_in_one_of_another_version() -> tuple[Path, str]:
        assert sandbox.pause() is True
        (checkpoint,) = checkpoints(small)
        manifest = checkpoint / "manifest.json"
        good = manifest.read_text()
        manifest.write_text(json.dumps({**json.loads(good), "version": 99, "news": ["of that version"]}))
        offer = f"cannot start from checkpoint {checkpoint.name}: another version .*files alone"
        with pytest.raises(SandboxException, match=offer):
            sandbox.connect()
        assert Sandbox.get_info(sandbox.sandbox_id, **small.options).state is SandboxState.PAUSED
        return manifest, good

    manifest, good = asleep_in_one_of_another_version()
    small.kill()
    small.start()
    assert Sandbox.get_info(sandbox.sandbox_id, **small.options).state is SandboxState.PAUSED
    manifest.write_text(good)
    assert pid in {process.pid for process in sandbox.connect().commands.list()}
    asleep_in_one_of_another_version()
    back = sandbox.connect(on_resume="reboot")
    assert back.files.read("/home/user/work") == "done"
    assert back.kill() is True
    assert checkpoints(small) == []
