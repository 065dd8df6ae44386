"""A fork bomb loses itself, not its sandbox."""

from collections.abc import Iterator
from typing import Any

import pytest
from e2b import CommandExitException, CommandHandle, Sandbox, SandboxException

from tests.e2e.waiting import until

RELIEF_S = 240
"""Under gVisor a thousand busy processes leave the guest little of a processor: 10 to 25 s on an idle machine."""
BOMB = ":(){ :|:& };:; sleep 600"
SPREAD = """
import os, time
for uid in range(2000, 3200):
    for _ in range(2):
        try:
            pid = os.fork()
        except OSError:
            time.sleep(0.01)
            continue
        if pid == 0:
            os.setuid(uid)
            time.sleep(600)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def box(on_runtime: dict[str, Any]) -> Iterator[Sandbox]:
    with Sandbox.create(timeout=900, **on_runtime) as sandbox:
        sandbox.files.write("/home/user/spread.py", SPREAD)
        yield sandbox


@pytest.fixture
def bystander(box: Sandbox) -> Iterator[CommandHandle]:
    """A command of the same sandbox that does no harm and must come to none."""
    handle = box.commands.run("sleep 900", background=True, timeout=0)
    yield handle
    assert handle.pid in [process.pid for process in box.commands.list()]
    handle.kill()


def works(box: Sandbox, command: str) -> bool:
    try:
        box.commands.run(command, timeout=30)
    except SandboxException:
        return False  # the bomb is at its largest just now
    return True


@pytest.mark.alone
@pytest.mark.threat("C2")
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("command", "user"), [(BOMB, "root"), ("exec python3 ~user/spread.py", "root")])
@pytest.mark.usefixtures("bystander")
def test_a_fork_bomb_is_ended_and_its_sandbox_goes_on(box: Sandbox, command: str, user: str) -> None:
    bomb = box.commands.run(command, user=user, background=True, timeout=RELIEF_S)
    with pytest.raises(CommandExitException) as caught:
        bomb.wait()
    assert "too many processes" in (caught.value.error or "") or "out of memory" in (caught.value.error or "")
    until(lambda: works(box, "echo fine"), RELIEF_S, "a command runs after the bomb")
    until(lambda: works(box, "test $(ps -e | wc -l) -lt 50"), RELIEF_S, "what is left of the bomb is gone")
