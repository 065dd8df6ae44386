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
from tests.e2e.test_faults_server import FOLDER_MB, fill, on_a_disk_of_its_own
from tests.e2e.waiting import until

pytestmark = [pytest.mark.threat("E5"), pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes need root")]
GVISOR = {"X-Warren-Runtime": "runsc"}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """Its state folder is on a small disk."""
    server = LocalServer(tmp_path_factory.mktemp("small"), pool_slots=2, disk_overcommit=1000)
    with on_a_disk_of_its_own(server, 2 * FOLDER_MB), nothing_left(server), server:
        yield server


def at_work(server: LocalServer) -> tuple[Sandbox, int]:
    """A sandbox with a file, and the pid of a command that goes on."""
    sandbox = Sandbox.create(timeout=600, api_headers=GVISOR, **server.options)
    sandbox.files.write("/home/user/work", "done")
    return sandbox, sandbox.commands.run("exec sleep 1000", background=True, timeout=0).pid


def checkpoints(server: LocalServer) -> list[Path]:
    return list((server.state / "engine" / "checkpoints").iterdir())


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


def _pauses(sandbox: Sandbox) -> bool:
    try:
        return sandbox.pause()
    except (SandboxException, ServiceBusyException):  # busy: its server has not yet found that there is room
        return False


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
    with pytest.raises(SandboxException, match=f"cannot use checkpoint {checkpoint.name}: .*(damaged|cannot be read)"):
        sandbox.connect()
    assert Sandbox.get_info(sandbox.sandbox_id, **small.options).state is SandboxState.PAUSED
    back = sandbox.connect(on_resume="reboot")
    assert back.files.read("/home/user/work") == "done"
    assert checkpoints(small) == []
    assert back.kill() is True


def test_what_another_version_wrote_is_refused_by_name_and_sleeps_until_that_version_is_back(
    small: LocalServer,
) -> None:
    sandbox, pid = at_work(small)
    assert sandbox.pause() is True
    (checkpoint,) = checkpoints(small)
    manifest = checkpoint / "manifest.json"
    good = manifest.read_text()
    manifest.write_text(json.dumps({**json.loads(good), "version": 99}))
    small.kill()
    small.start()
    with pytest.raises(SandboxException, match=f"cannot use checkpoint {checkpoint.name}: .*of this version"):
        sandbox.connect()
    assert Sandbox.get_info(sandbox.sandbox_id, **small.options).state is SandboxState.PAUSED
    manifest.write_text(good)
    small.kill()
    small.start()
    assert pid in {process.pid for process in sandbox.connect().commands.list()}
    assert sandbox.kill() is True


def spoil(image: Path, damage: str) -> None:
    size = image.stat().st_size
    with image.open("r+b") as file:
        if damage == "truncated":
            file.truncate(size // 2)
            return
        file.seek(size // 2)
        old = file.read(1)
        file.seek(size // 2)
        file.write(bytes([old[0] ^ 1]))
