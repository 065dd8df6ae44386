"""The warm pool: sandboxes started before anybody asked, handed out by a claim.

A spare runs under an id that nobody knows; claiming it makes that the sandbox's id. It has no row in the store, no
route and no owner, so no list shows it. A server that starts destroys the spares of the one before it, because it
knows nothing of them.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence, Set
from dataclasses import dataclass
from typing import TypeVar

import structlog

from warren.contracts.clock import Clock, Ids
from warren.contracts.engine import Engine, Placement
from warren.contracts.store import Store
from warren.control.launching import Launcher, Owner
from warren.control.work import Work
from warren.model import limits
from warren.model.errors import NoCapacity, WarrenError
from warren.model.policy import EgressPolicy
from warren.model.pool import Budget, Demand, Floor, Kind, Rush, targets
from warren.model.template import Template
from warren.telemetry.meters import Meters

log = structlog.get_logger(__name__)
Started = TypeVar("Started")

SPARE_EGRESS = EgressPolicy()
"""Of every spare; nothing in it sends anything before it is claimed, and a claim sets the owner's rules first."""


@dataclass(frozen=True, slots=True)
class Spare:
    id: str
    kind: Kind
    template: Template
    placement: Placement


@dataclass(frozen=True, slots=True)
class Level:
    """What `warren pool list` shows of one kind."""

    kind: Kind
    template: Template
    ready: int
    wanted: int


class Spares:
    """State changes are synchronous; the work on them is awaited after."""

    def __init__(
        self,
        *,
        engine: Engine,
        launcher: Launcher,
        store: Store,
        clock: Clock,
        ids: Ids,
        work: Work,
        meters: Meters,
        floors: Sequence[Floor],
        budget: Budget,
    ) -> None:
        self._engine, self._launcher, self._store = engine, launcher, store
        self._clock, self._ids, self._work, self._meters = clock, ids, work, meters
        self._floors, self._budget = floors, budget
        self._demand = Demand()
        self._ready: dict[Kind, deque[Spare]] = {}
        self._templates: dict[Kind, Template] = {}
        self._wanted: dict[Kind, int] = {}
        self._rests: dict[Kind, float] = {}
        self._doomed: set[str] = set()
        self._changed = asyncio.Event()
        self._rush = Rush()
        self._is_adding = False
        self._added = asyncio.Event()
        self._closing = False
        self._closed = asyncio.Event()

    def claim(self, kind: Kind, template: Template) -> Spare | None:
        """Take a spare of this kind out of the pool; None when there is none. Remembers that one was asked for."""
        if not self._budget.sandboxes:
            return None
        self._demand.note(kind, self._clock.now())
        self._rush.note(asyncio.get_running_loop().time())
        self._templates[kind] = template
        self._changed.set()
        ready = self._ready.get(kind)
        spare = ready.popleft() if ready else None
        self._meters.pool_claims.labels(kind.runtime, "miss" if spare is None else "hit").inc()
        return spare

    def give_back(self, spare: Spare) -> None:
        """A claimed spare that was not used after all."""
        self._keep(spare)
        self._changed.set()

    def _keep(self, spare: Spare) -> None:
        self._templates[spare.kind] = spare.template
        self._ready.setdefault(spare.kind, deque()).append(spare)

    def levels(self) -> list[Level]:
        kinds = {*self._wanted, *(kind for kind, ready in self._ready.items() if ready)}
        found = [Level(k, self._templates[k], len(self._ready.get(k, ())), self._wanted.get(k, 0)) for k in kinds]
        return sorted(found, key=lambda level: (level.template.names, level.kind.runtime))

    async def run(self, may_fill: Callable[[], bool]) -> None:
        """Keep the pool at its targets until drained. `may_fill`: nobody waits for a create, who would come first."""
        now = asyncio.get_running_loop().time
        while self._budget.sandboxes and not self._closing:
            if (left := self._rush.left(now())) > 0:
                await self._nap(left)
                continue
            try:
                await self._settle(may_fill)
            except WarrenError as error:
                log.warning("pool not filled", error=error.message)
            except Exception:
                log.exception("pool not filled; trying again")
            await self._nap(limits.POOL_PERIOD_S)
        self._closed.set()

    async def _nap(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._changed.clear()

    async def placed(self, start: Callable[[], Awaitable[Started]]) -> Started:
        """What `start` gives, at the cost of as many spares as it takes. Raises NoCapacity when they are not enough."""
        for _ in range(self._budget.sandboxes):
            with contextlib.suppress(NoCapacity):
                return await start()
            if not await self._make_room():
                break
        return await start()

    async def _make_room(self) -> bool:
        """Give up one spare; False when there is none. One that is being started is waited for: it holds a place."""
        while not (ready := max(self._ready.values(), key=len, default=None)):
            if not self._is_adding:
                return False
            self._added.clear()
            await self._added.wait()
        await self._end({ready.pop().id})
        return True

    async def drain(self) -> None:
        """End `run`, then destroy every spare: for a server that stops."""
        self._closing = True
        self._changed.set()
        await self._closed.wait()
        self._wanted = {}
        await self._end(self._surplus())

    async def _settle(self, may_fill: Callable[[], bool]) -> None:
        floors = await self._floor_kinds()
        budget = Budget(0, 0) if await self._is_memory_short() else self._budget
        self._wanted = targets(floors, self._demand.bursts(self._clock.now()), budget)
        await self._end(self._surplus())
        now = asyncio.get_running_loop().time
        while not self._closing and may_fill() and not self._rush.left(now()) and (kind := self._lacking()):
            await self._add(kind)
            if await self._is_memory_short():
                break
        if self._lacking() is None:
            self._rush.over()

    async def _is_memory_short(self) -> bool:
        """Whether what is kept ahead should go, so that what runs can stay."""
        machine = (await self._engine.room()).machine
        return machine.memory_available < limits.POOL_MEMORY_RESERVE_MB

    async def _floor_kinds(self) -> dict[Kind, int]:
        """The configured floors, of the templates as they are now: a template that was built anew is another kind."""
        found: dict[Kind, int] = {}
        for floor in self._floors:
            template = await self._store.find_template("", floor.template)
            if template is None:
                continue
            runtime = floor.runtime or template.runtime or self._engine.runtimes[0]
            kind = Kind(template.id, template.digest, runtime, template.resources, template.build_id)
            self._templates[kind] = template
            found[kind] = floor.count
        return found

    def _lacking(self) -> Kind | None:
        now = asyncio.get_running_loop().time()
        awake = [kind for kind in self._wanted if self._rests.get(kind, 0.0) <= now]
        missing = {kind: self._wanted[kind] - len(self._ready.get(kind, ())) for kind in awake}
        kind = max(missing, key=missing.__getitem__, default=None)
        return kind if kind is not None and missing[kind] > 0 else None

    async def _add(self, kind: Kind) -> None:
        spare_id, template = self._ids.sandbox_id(), self._templates[kind]
        self._is_adding = True
        try:
            launched = await self._launcher.start_new(spare_id, template, kind, SPARE_EGRESS, in_background=True)
            await self._launcher.greet(launched, template, Owner(), limits.GUEST_BOOT_DEADLINE_S)
            await self._engine.bring_forward(spare_id)
            self._keep(Spare(spare_id, kind, template, launched.placement))
        except WarrenError as error:
            await self._end({spare_id})
            if not isinstance(error, NoCapacity):
                self._rests[kind] = asyncio.get_running_loop().time() + limits.POOL_REST_S
            raise
        finally:
            self._is_adding = False
            self._added.set()
        self._work.spawn(self._await_death(spare_id, kind), f"watch spare {spare_id}")
        self._count(kind)

    async def _await_death(self, spare_id: str, kind: Kind) -> None:
        await self._engine.death(spare_id)
        dead = [spare for spare in self._ready.get(kind, ()) if spare.id == spare_id]
        if dead:  # else it was claimed, and whoever watches the sandbox sees it
            self._ready[kind].remove(dead[0])
            log.warning("a spare sandbox died", sandbox=spare_id, runtime=kind.runtime)
            await self._end({spare_id})
            self._changed.set()

    def _surplus(self) -> set[str]:
        """Take what is too much out of the pool; with it, what is still there of earlier ones, and idle kinds.

        At once: a claim names its kind's template at any other time.
        """
        surplus = set(self._doomed)
        for kind, ready in self._ready.items():
            surplus |= {ready.pop().id for _ in range(len(ready) - self._wanted.get(kind, 0))}
            self._count(kind)
        for kind in [kind for kind in self._templates if not self._ready.get(kind) and kind not in self._wanted]:
            del self._templates[kind]
            self._ready.pop(kind, None)
            self._rests.pop(kind, None)
        return surplus

    async def _end(self, spare_ids: Set[str]) -> None:
        """Destroy spares that are out of the pool. One that does not go is tried again when the pool settles."""
        self._doomed |= spare_ids
        for spare_id in spare_ids:
            try:
                await self._engine.destroy(spare_id)
                self._doomed.discard(spare_id)
            except WarrenError as error:
                log.warning("a spare does not go; trying again", sandbox=spare_id, error=error.message)

    def _count(self, kind: Kind) -> None:
        same = [ready for each, ready in self._ready.items() if each.runtime == kind.runtime]
        self._meters.pool_ready.labels(kind.runtime).set(sum(map(len, same)))
