"""What a program shows on a terminal that the test holds the other end of."""

import os
import select
import time


def read_until(master: int, mark: bytes, within_s: float = 30) -> bytes:
    shown, deadline = b"", time.monotonic() + within_s
    while mark not in shown:
        ready, _, _ = select.select([master], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise AssertionError(f"not within {within_s:.0f} s: {mark!r}; shown: {shown!r}")
        shown += os.read(master, 65536)
    return shown
