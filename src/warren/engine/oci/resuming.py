"""`runsc resume`, which is never cut off and never begun twice.

The kernel inside lets go when what it saves is saved, and that can take longer than anybody waits. It has got the wish
by then: cut off, the command would go on inside, and a second one would make it let go twice, which ends it. So one
that takes too long is left at work, its process is noted in the sandbox's folder, and who comes next waits for its end.
"""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from warren import durable
from warren.engine.oci.command import MINIMAL_ENVIRONMENT, words
from warren.engine.oci.process import ProcessId, wait_over
from warren.model import limits
from warren.model.errors import EngineFailed

AT_WORK = "runsc-resume"
SAID = "runsc-resume.said"


def resume(sandbox_id: str, argv: Sequence[str], folder: Path) -> None:
    """Call it when there is none at work. Raises EngineFailed."""
    with open(folder / SAID, "w+b") as said:
        try:
            process = subprocess.Popen(  # argv is built by the engine, never a shell
                argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=MINIMAL_ENVIRONMENT
            )
        except OSError as error:
            raise EngineFailed(f"cannot wake sandbox {sandbox_id}: {argv[0]}: {error.strerror}") from None
        found = ProcessId.of(process.pid)
        if found is not None:  # else it has ended already
            note(folder, found)
        _await_end(sandbox_id, process.pid, folder)
        if (code := process.wait()) != 0:
            said.seek(0)
            why = words(said.read().decode(errors="replace")) or f"exit {code}"
            raise EngineFailed(f"cannot wake sandbox {sandbox_id}: {why}")


def note(folder: Path, process: ProcessId) -> None:
    durable.write(folder / AT_WORK, json.dumps([process.pid, process.started]), lasting=False)


def await_earlier(sandbox_id: str, folder: Path) -> None:
    """Until no resume of the sandbox is at work any more. Raises EngineFailed."""
    try:
        process = ProcessId(*json.loads((folder / AT_WORK).read_text()))
    except FileNotFoundError:
        return
    pidfd = process.open()
    if pidfd is None:
        (folder / AT_WORK).unlink(missing_ok=True)
        return
    os.close(pidfd)
    _await_end(sandbox_id, process.pid, folder)


def _await_end(sandbox_id: str, pid: int, folder: Path) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        pidfd = None
    if pidfd is not None:
        try:
            if not wait_over(pidfd, limits.CHECKPOINT_DEADLINE_S):
                why = f"it did not go on within {limits.CHECKPOINT_DEADLINE_S:g} s, and may yet"
                raise EngineFailed(f"cannot wake sandbox {sandbox_id}: {why}")
        finally:
            os.close(pidfd)
    (folder / AT_WORK).unlink(missing_ok=True)
    (folder / SAID).unlink(missing_ok=True)
