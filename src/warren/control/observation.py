"""Metrics and logs: sampled in the background, read by their owner."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import structlog

from warren.contracts.clock import Clock
from warren.contracts.engine import Engine
from warren.contracts.routing import Route
from warren.contracts.store import LogQuery, Store
from warren.control.activity import Activity
from warren.control.clock import next_turn
from warren.control.journals import Journals
from warren.control.live import LiveSandboxes
from warren.model import limits
from warren.model.errors import BadRequest, SandboxNotFound, WarrenError
from warren.model.observation import LogEntry, Metric, Usage
from warren.model.project import Project
from warren.model.sandbox import Sandbox

log = structlog.get_logger(__name__)

_ASKED_AT_ONCE = 16
"""Sandboxes sampled at the same time: enough to be through with 1,000 in a period, few enough to disturb nobody."""


class Observations:
    def __init__(
        self,
        *,
        engine: Engine,
        store: Store,
        clock: Clock,
        live: LiveSandboxes,
        activity: Activity,
        journals: Journals,
    ) -> None:
        self._engine, self._store, self._clock, self._live = engine, store, clock, live
        self._activity, self._journals = activity, journals
        self._before: dict[str, tuple[datetime, Usage]] = {}

    async def run(self) -> None:
        """Sample every `limits.METRICS_PERIOD_S`, until cancelled."""
        while True:
            started = self._clock.now()
            try:
                await self._sample_all()
            except Exception:
                log.exception("sampling failed; it runs again")
            await next_turn(self._clock, started, timedelta(seconds=limits.METRICS_PERIOD_S))

    async def metrics(
        self, project: Project, sandbox_id: str, start: datetime | None, end: datetime | None
    ) -> Sequence[Metric]:
        """Samples between two instants, both inclusive. Raises BadRequest when `end` lies before `start`."""
        await self._readable(project, sandbox_id)
        if start is not None and end is not None and end < start:
            raise BadRequest("cannot give metrics: end lies before start")
        return await self._store.metrics(sandbox_id, start, end, limits.METRICS_KEPT_PER_SANDBOX)

    async def latest(self, project: Project, sandbox_ids: Sequence[str]) -> Mapping[str, Metric]:
        if len(sandbox_ids) > limits.METRICS_BATCH_MAX:
            raise BadRequest(f"cannot give metrics of more than {limits.METRICS_BATCH_MAX} sandboxes at once")
        return await self._store.latest_metrics(project.id, sandbox_ids)

    async def logs(self, project: Project, sandbox_id: str, query: LogQuery) -> Sequence[LogEntry]:
        """Log of a sandbox, also after its end as long as its row is kept (`limits.GONE_KEPT_S`)."""
        await self._readable(project, sandbox_id)
        route = self._live.find(sandbox_id)
        if route is not None:
            await self._journals.fetch(route)
        return await self._store.logs(sandbox_id, query)

    async def _readable(self, project: Project, sandbox_id: str) -> Sandbox:
        sandbox = await self._store.sandbox(project.id, sandbox_id)
        if sandbox is None:
            raise SandboxNotFound.of(sandbox_id)
        return sandbox

    async def _sample_all(self) -> None:
        routes = list(self._live.all())
        gate = asyncio.Semaphore(_ASKED_AT_ONCE)

        async def one(route: Route) -> Metric | None:
            async with gate:
                await self._journals.fetch(route)
                return await self._sample(route.sandbox_id)

        sampled = await asyncio.gather(*(one(route) for route in routes))
        await self._store.add_metrics([metric for metric in sampled if metric is not None])
        alive = {route.sandbox_id for route in self._live.all()}
        for gone in self._before.keys() - alive:
            del self._before[gone]
        self._journals.forget_gone()

    async def _sample(self, sandbox_id: str) -> Metric | None:
        try:
            usage = await self._engine.usage(sandbox_id)
        except WarrenError:
            return None  # it ended while we looked
        now = self._clock.now()
        before = self._before.get(sandbox_id)
        self._before[sandbox_id] = (now, usage)
        metric = metric_of(sandbox_id, now, usage, before)
        self._activity.worked(sandbox_id, metric.cpu_used_pct)
        return metric


def metric_of(sandbox_id: str, now: datetime, usage: Usage, before: tuple[datetime, Usage] | None) -> Metric:
    """A sample from two readings; the first one has no CPU share yet."""
    share = 0.0
    if before is not None and (seconds := (now - before[0]).total_seconds()) > 0:
        share = max(0.0, (usage.cpu_seconds - before[1].cpu_seconds) / seconds * 100)
    return Metric(
        sandbox_id=sandbox_id,
        at=now,
        cpu_count=usage.cpu_count,
        cpu_used_pct=round(share, 2),
        memory_used=usage.memory_used,
        memory_total=usage.memory_total,
        memory_cache=usage.memory_cache,
        disk_used=usage.disk_used,
        disk_total=usage.disk_total,
    )
