"""Slots prepared ahead, so that a create finds one ready."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import structlog

from warren.engine.oci import firewall
from warren.engine.oci.conntrack import forget_connections
from warren.engine.oci.network import Network
from warren.engine.oci.slot import Slot, SlotPlan
from warren.engine.oci.threads import on_thread
from warren.model.errors import EngineFailed, NoCapacity

BATCH = 8
"""Slots made or reset in one go: more would hold up the create that waits for one."""
CALM_S = 0.25
"""Seconds since a slot was last taken, before others are made: whoever took it needs the processors."""
RETRY_PAUSE_S = 2.0
"""Seconds after a failure before the filler tries again."""

log = structlog.get_logger(__name__)


class SlotMaker:
    """Rules and links of slots together, in the safe order: rules first, links after; and back the other way."""

    def __init__(self, plan: SlotPlan, network: Network, prepare: Callable[[Slot], None]) -> None:
        """`prepare` is called with each new slot: the runtimes make ahead what they need for it."""
        self._plan = plan
        self._network = network
        self._prepare = prepare

    def make(self, slots: Sequence[Slot]) -> None:
        firewall.apply("admit network slots", firewall.slot_elements("add", self._plan.bridge, slots))
        try:
            self._network.prepare(slots)
            for slot in slots:
                self._prepare(slot)
        except Exception as error:
            self.unmake(slots)
            if isinstance(error, EngineFailed):
                raise
            raise EngineFailed(f"cannot prepare a network slot: {error}") from error

    def unmake(self, slots: Sequence[Slot]) -> None:
        """Idempotent. Drops and connections are forgotten last: until the links are gone, new ones could appear."""
        self._network.remove(slots)
        change = firewall.slot_elements("delete", self._plan.bridge, slots)
        firewall.apply("close network slots", change + firewall.forgotten_drops(self._plan.bridge, slots))
        forget_connections({slot.address for slot in slots})

    def renew(self, used: Sequence[Slot], fresh: Sequence[Slot]) -> None:
        if used:
            self.unmake(used)
        if fresh:
            self.make(fresh)


class SlotPool:
    """Which slots are ready, free or used up. State changes are synchronous; the work on them is awaited after."""

    def __init__(self, plan: SlotPlan, maker: SlotMaker, ahead: int) -> None:
        self._plan = plan
        self._maker = maker
        self._ahead = min(ahead, plan.count)
        self._ready: deque[Slot] = deque()
        self._free: deque[int] = deque()
        self._used_up: deque[Slot] = deque()
        self._in_work = 0
        self._taken_at = 0.0
        self._wanted = asyncio.Event()
        self._worked = asyncio.Event()
        self._filler: asyncio.Task[None] | None = None

    def open(self, taken: Iterable[int]) -> None:
        """Start to fill; `taken` are the slots of sandboxes that run already."""
        in_use = set(taken)
        self._free = deque(index for index in self._plan.indexes() if index not in in_use)
        self._wanted.set()
        self._filler = asyncio.create_task(self._fill(), name="slot-pool")  # noqa: TID251  # ended by close()

    async def close(self) -> None:
        """Stop to fill and remove every slot that no sandbox uses."""
        if self._filler is not None:
            self._filler.cancel()
            await asyncio.wait([self._filler])
            self._filler = None
        idle = self.idle
        self._ready.clear()
        self._used_up.clear()
        if idle:
            await on_thread(self._maker.unmake, idle)

    async def take(self) -> Slot:
        """A slot whose links and rules are in place. Raises NoCapacity."""
        self._wanted.set()
        while not (self._ready or self._free or self._used_up):
            if not self._in_work:
                raise NoCapacity(f"cannot place another sandbox: all {self._plan.count} network slots are in use")
            self._worked.clear()
            await self._worked.wait()
        self._taken_at = asyncio.get_running_loop().time()
        if self._ready:
            return self._ready.popleft()
        used = [] if self._free else [self._used_up.popleft()]
        slot = used[0] if used else self._plan.slot(self._free.popleft())
        try:
            await on_thread(self._maker.renew, used, [slot])
        except BaseException:
            self.give_back(slot)
            raise
        return slot

    @property
    def idle(self) -> list[Slot]:
        """Slots that exist and that no sandbox has."""
        return [*self._ready, *self._used_up]

    def give_back(self, slot: Slot) -> None:
        """The sandbox of this slot is gone; it is made anew before the next one gets it."""
        self._used_up.append(slot)
        self._wanted.set()
        self._worked.set()

    async def _fill(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while used_and_fresh := await self._claim():
                if not await self._renew(*used_and_fresh):
                    await asyncio.sleep(RETRY_PAUSE_S)

    async def _claim(self) -> tuple[list[Slot], list[Slot]] | None:
        """What there is to do; not at once while slots are being taken and a batch of them is left."""
        now = asyncio.get_running_loop().time
        while len(self._ready) > min(self._ahead // 2, BATCH) and (left := self._taken_at + CALM_S - now()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._wanted.wait()
                    self._wanted.clear()
        used = [self._used_up.popleft() for _ in range(min(BATCH, len(self._used_up)))]
        missing = max(0, self._ahead - len(self._ready))
        fresh = [self._plan.slot(self._free.popleft()) for _ in range(min(BATCH, missing, len(self._free)))]
        return (used, fresh) if used or fresh else None

    async def _renew(self, used: list[Slot], fresh: list[Slot]) -> bool:
        self._in_work += 1
        try:
            await on_thread(self._maker.renew, used, fresh)
        except (EngineFailed, OSError) as error:
            log.warning("slots not prepared", error=str(error), slots=len(used) + len(fresh))
            self._used_up.extend([*used, *fresh])
            return False
        except asyncio.CancelledError:
            self._used_up.extend([*used, *fresh])
            raise
        finally:
            self._in_work -= 1
            self._worked.set()
        self._free.extend(slot.index for slot in used)
        self._ready.extend(fresh)
        return True
