"""The ordinary server, on a machine whose clock is set meanwhile. `set_clock.py FILE`: how many seconds it is ahead."""

import asyncio
import os
import sys
from datetime import datetime, timedelta
from pathlib import Path

import uvloop

from warren.control.clock import SystemClock
from warren.settings import load
from warren.wiring import control, serving


class SetClock(SystemClock):
    def __init__(self, file: Path) -> None:
        self._file = file

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=int(self._file.read_text()))


def main() -> None:
    control.SystemClock = lambda: SetClock(Path(sys.argv[1]))  # type: ignore[assignment, misc]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serving.serve(load(os.environ)))


if __name__ == "__main__":
    main()
