"""The user namespace of a slot: crun's sandbox joins it, and its idmapped mounts read the mapping of ids from it.

Its owner is the slot's own host uid. The kernel counts what there may be few of (inotify instances and watches, pending
signals, message queues) for the owner too: with root as everybody's owner, one sandbox would take them from all others
and from the host.
"""

import os
import select
import subprocess
import threading
from pathlib import Path

from warren.engine.oci.command import MINIMAL_ENVIRONMENT
from warren.engine.oci.slot import Slot
from warren.engine.oci.uids import UIDS_PER_SLOT, UidRanges
from warren.model.errors import EngineFailed

START_DEADLINE_S = 5.0
"""Seconds for `cat` to answer from its new namespace; normally 0.003."""


class UserNamespaces:
    """One for each slot that was asked for, held as a descriptor until `close`."""

    def __init__(self, ranges: UidRanges) -> None:
        self._ranges = ranges
        self._held: dict[int, int] = {}
        self._lock = threading.Lock()

    def of(self, slot: Slot) -> int:
        """The descriptor of the namespace with the slot's mapping; it stays this object's own."""
        with self._lock:
            if slot.index not in self._held:
                self._held[slot.index] = _make(self._ranges.base(slot))
            return self._held[slot.index]

    def close(self) -> None:
        with self._lock:
            for fd in self._held.values():
                os.close(fd)
            self._held.clear()


def _make(base: int) -> int:
    # A process of several threads may not enter a user namespace, so one that does nothing else makes it.
    owner = ["setpriv", f"--reuid={base}", f"--regid={base}", "--clear-groups"]
    # A distribution may let only the privileged make user namespaces.
    allowed = ["--inh-caps=+sys_admin", "--ambient-caps=+sys_admin"]
    with subprocess.Popen(
        [*owner, *allowed, "unshare", "--user", "cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        env=MINIMAL_ENVIRONMENT,
    ) as holder:
        if not _echoes(holder):
            raise EngineFailed("cannot make a user namespace: see /proc/sys/user/max_user_namespaces")
        process = Path(f"/proc/{holder.pid}")
        for name in ("uid_map", "gid_map"):
            (process / name).write_text(f"0 {base} {UIDS_PER_SLOT}\n")
        return os.open(process / "ns" / "user", os.O_RDONLY | os.O_CLOEXEC)


def _echoes(holder: "subprocess.Popen[bytes]") -> bool:
    """Whether `cat` runs, which it does inside the new namespace only."""
    if holder.stdin is None or holder.stdout is None:
        return False
    holder.stdin.write(b".")
    ready, _, _ = select.select([holder.stdout], [], [], START_DEADLINE_S)
    return bool(ready) and holder.stdout.read(1) == b"."
