"""Starting a runtime's command, with its log on a pipe.

Sandbox processes inherit the standard streams of the command that starts them, so those are /dev/null: a pipe would
break under the guest, and a file would let it fill the host's disk. The runtime's own words go to a pipe that
is read once and closed; a sentry that logs more later writes into the void.
"""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from warren.engine.oci.command import MINIMAL_ENVIRONMENT, words
from warren.engine.oci.process import wait_over
from warren.model.errors import EngineFailed
from warren.telemetry.steps import step

LOG_BYTES = 64 * 1024
"""Read of a runtime's log: what a pipe holds."""
INTO_GROUP = ("/bin/sh", "-c", 'echo 0 > "$0" && exec "$@"')
"""A process that moves only itself waits for nobody; the kernel's other ways stop all forks for a moment."""


def launch(purpose: str, argv: Sequence[str], log_option: str, deadline_s: float, entry: Path | None = None) -> None:
    """Run `argv`, whose first element gets `log_option` + the log's path behind it. Raises EngineFailed.

    entry: the file of a cgroup by which the command goes in before it does anything.
    """
    first = [] if entry is None else [*INTO_GROUP, str(entry)]
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        try:
            with step("runtime"):
                code = _wait(
                    purpose, [*first, argv[0], f"{log_option}/proc/self/fd/{writer}", *argv[1:]], writer, deadline_s
                )
        finally:
            os.close(writer)
        if code != 0:
            raise EngineFailed(f"cannot {purpose}: {_said(reader) or f'{argv[0]} ended with {code}'}")
    finally:
        os.close(reader)


def _wait(purpose: str, argv: Sequence[str], log: int, deadline_s: float) -> int:
    try:
        process = subprocess.Popen(  # argv is built by the engine, never a shell
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=MINIMAL_ENVIRONMENT,
            pass_fds=(log,),
        )
    except OSError as error:
        raise EngineFailed(f"cannot {purpose}: {argv[0]}: {error.strerror}; run `warren doctor`") from None
    # Not `process.wait(deadline_s)`: that looks for the end in naps of up to 50 ms.
    pidfd = os.pidfd_open(process.pid)
    try:
        in_time = wait_over(pidfd, deadline_s)
    finally:
        os.close(pidfd)
    if not in_time:
        process.kill()
    code = process.wait()
    if not in_time:
        raise EngineFailed(f"cannot {purpose}: {argv[0]} did not finish within {deadline_s:g} s")
    return code


def _said(reader: int) -> str:
    try:
        return words(os.read(reader, LOG_BYTES).decode(errors="replace"))
    except BlockingIOError:
        return ""
