"""The fence around a sandbox's memory: where it stands, and the kernel's word that it is reached.

Under crun the kernel ends a process inside by itself, and all that is left to do is to say so. Under gVisor it would
end gVisor's own kernel, and the sandbox with it. There the kernel is told to hold up who asks for more (v1) or to
slow it down (v2), until the guest has ended the largest process.

The guest may need a little memory for that itself. So the fence is moved out in steps with pauses between them: in a
step all get some, in a pause the hogs stand still, however many there are and however fast, and leave the processors
to the guest. Once use has fallen the fence is put back.

gVisor writes checkpoints itself, which takes memory of its own. Meanwhile the whole fence stands further out; it is
back before the sandbox goes on, but for what the images take that lie in memory until they are sealed. Under crun the
server's own processes make the checkpoint, and nothing is lent. Nobody else sets these limits, and each new fence sets
them first: an earlier server may have ended while they stood further out.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from typing import Protocol

from warren.engine.oci import libc
from warren.engine.oci.cgroup import LOWER_ATTEMPTS, Cgroups
from warren.model.errors import EngineFailed

MIB = 1024 * 1024
SENTRY_BYTES = 96 * MIB
"""Memory that gVisor's own processes may use beside what the sandbox was promised."""
STEP_BYTES = 32 * MIB
STEP_PAUSE_S = 0.03
"""Seconds between two steps: at 1 GiB/s what hogs get is what an idle machine gives them anyway."""
HEADROOM_BYTES = 1024 * MIB
"""All steps together; whoever has not freed anything by then is not going to."""
CLEARANCE_SHARE = 8
"""The guest is asked to free at least this fraction of the limit, so that it is not asked again at once."""
INOTIFY_BYTES = 4096

Keep = Callable[[int], None]
"""Give back what was lent, all but this many bytes. Quick, for a sandbox that stands still until then."""


class Fence(Protocol):
    """`heard` and `step` are quick enough for the event loop; the others may take their time on a thread meanwhile."""

    descriptor: int
    """Readable when something has happened; not for anybody else to read or close."""
    guest_acts: bool
    """Whether it is the guest that ends processes, and not the kernel."""

    def heard(self) -> bool:
        """Take in what happened. False when it was nothing that anybody has to act upon."""
        ...

    def step(self) -> None:
        """Move the fence out a little, if it is the guest that has to act."""
        ...

    def put_back(self) -> int:
        """Put the fence back where it belongs if use has fallen below it: 0, or the bytes that are to be freed."""
        ...

    def headroom(self, extra: int) -> AbstractContextManager[Keep]:
        """Lend a sandbox under gVisor `extra` bytes above its limit meanwhile. Raises EngineFailed."""
        ...

    def close(self) -> None: ...


def fence(cgroups: Cgroups, sandbox_id: str, limit: int, *, guest_acts: bool) -> Fence:
    """Raises EngineFailed. `limit`: bytes of the sandbox with all that belongs to it."""
    kind = FenceV2 if cgroups.is_v2 else FenceV1
    try:
        return kind(cgroups, sandbox_id, limit, guest_acts)
    except OSError as error:
        raise EngineFailed(f"cannot watch the memory of sandbox {sandbox_id}: {error.strerror}") from None


def to_free(usage: int, cache: int, limit: int) -> int:
    """Bytes that have to go before `limit` holds: 0 when dropping cache is enough, else with some clearance."""
    excess = usage - cache - limit
    return 0 if excess < 0 else excess + limit // CLEARANCE_SHARE


class _Lender:
    """What both fences have, and how they move out and back as a whole."""

    def __init__(self, cgroups: Cgroups, sandbox_id: str, limit: int, guest_acts: bool) -> None:
        self._cgroups, self._id, self._limit, self.guest_acts = cgroups, sandbox_id, limit, guest_acts
        self._moving = threading.Lock()

    @contextlib.contextmanager
    def headroom(self, extra: int) -> Generator[Keep]:
        lent = extra if self.guest_acts else 0

        def keep(rest: int, attempts: int = 1) -> None:
            nonlocal lent
            with self._moving:
                given_back = max(0, lent - rest)
                lent -= given_back
                self._limit -= given_back
                if given_back:
                    self._move_back(attempts)

        try:
            with self._moving:
                self._limit += lent
                if lent:
                    self._move_out()
            yield keep
        finally:
            keep(0, LOWER_ATTEMPTS)

    def _move_out(self) -> None:
        """To `_limit`; what stands further out stays, since all of it may be in use."""
        raise NotImplementedError

    def _move_back(self, attempts: int) -> None:
        """To `_limit`, or to what is in use above it."""
        raise NotImplementedError


class FenceV1(_Lender):
    """memory.oom_control: an eventfd, and who asks for memory waits until there is some."""

    def __init__(self, cgroups: Cgroups, sandbox_id: str, limit: int, guest_acts: bool) -> None:
        super().__init__(cgroups, sandbox_id, limit, guest_acts)
        self._control = cgroups.memory_file(sandbox_id, "memory.oom_control")
        self.descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            control = os.open(self._control, os.O_RDONLY | os.O_CLOEXEC)
            try:
                register = cgroups.memory_file(sandbox_id, "cgroup.event_control")
                register.write_text(f"{self.descriptor} {control}")
            finally:
                os.close(control)
            if guest_acts:
                self._control.write_text("1")
            self._move_back(LOWER_ATTEMPTS)
        except BaseException:
            os.close(self.descriptor)
            raise

    def heard(self) -> bool:
        told = False
        with contextlib.suppress(BlockingIOError):
            told = os.eventfd_read(self.descriptor) > 0
        try:
            state = self._control.read_text()
        except OSError:
            return False  # the last event of a group is its removal
        return "under_oom 1" in state if self.guest_acts else told

    def step(self) -> None:
        if not self.guest_acts:
            return
        with contextlib.suppress(OSError, EngineFailed):  # its group has just gone
            now = int(self._cgroups.memory_file(self._id, "memory.limit_in_bytes").read_text())
            if now < self._limit + HEADROOM_BYTES:
                self._cgroups.set_memory(self._id, now + STEP_BYTES)

    def put_back(self) -> int:
        with self._moving:
            usage = self._cgroups.usage(self._id)
            rest = to_free(usage.memory, usage.cache, self._limit)
            if rest == 0:
                try:
                    self._cgroups.set_memory(self._id, self._limit)
                except EngineFailed:  # it has grown again meanwhile
                    return self._limit // CLEARANCE_SHARE
            return rest

    def _move_out(self) -> None:
        self._cgroups.raise_memory(self._id, self._limit)

    def _move_back(self, attempts: int) -> None:
        self._cgroups.lower_memory(self._id, self._limit, attempts)

    def close(self) -> None:
        os.close(self.descriptor)


class FenceV2(_Lender):
    """memory.high slows down who is above it and is counted in memory.events; memory.max is out of reach behind it."""

    def __init__(self, cgroups: Cgroups, sandbox_id: str, limit: int, guest_acts: bool) -> None:
        super().__init__(cgroups, sandbox_id, limit, guest_acts)
        self._high = cgroups.memory_file(sandbox_id, "memory.high")
        self._events = cgroups.memory_file(sandbox_id, "memory.events")
        self._stand()
        cgroups.lower_memory(sandbox_id, self._last)
        self._count = self._counted()
        self.descriptor = libc.inotify_of(self._events)

    def heard(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            os.read(self.descriptor, INOTIFY_BYTES)
        try:
            before, self._count = self._count, self._counted()
            return self._count > before and (not self.guest_acts or self._is_short())
        except (OSError, EngineFailed):
            return False  # the group is gone

    def step(self) -> None:
        if not self.guest_acts:
            return
        with contextlib.suppress(OSError):  # its group has just gone
            now = int(self._high.read_text())
            if now < self._limit + HEADROOM_BYTES:
                self._high.write_text(str(now + STEP_BYTES))

    def _is_short(self) -> bool:
        """Not while it is enough to drop cache, which the kernel has begun to do by itself."""
        usage = self._cgroups.usage(self._id)
        return to_free(usage.memory, usage.cache, self._limit - self._limit // CLEARANCE_SHARE) > 0

    def _counted(self) -> int:
        rows = dict(line.split() for line in self._events.read_text().splitlines())
        return int(rows.get("high" if self.guest_acts else "oom_kill", 0))

    @property
    def _last(self) -> int:
        """Where the kernel ends processes: with a guest that acts, beyond all steps."""
        return self._limit + (2 * HEADROOM_BYTES if self.guest_acts else 0)

    def put_back(self) -> int:
        with self._moving:
            usage = self._cgroups.usage(self._id)
            rest = to_free(usage.memory, usage.cache, self._limit)
            if rest == 0:
                self._stand()
            return rest

    def _move_out(self) -> None:
        self._cgroups.raise_memory(self._id, self._last)
        if self._cgroups.limit(self._id, self._high.name) < self._limit:
            self._stand()

    def _move_back(self, attempts: int) -> None:
        with contextlib.suppress(EngineFailed):  # its group has ended
            self._stand()
        self._cgroups.lower_memory(self._id, self._last, attempts)

    def _stand(self) -> None:
        if self.guest_acts:
            self._cgroups.slow_down(self._id, self._limit)

    def close(self) -> None:
        os.close(self.descriptor)
