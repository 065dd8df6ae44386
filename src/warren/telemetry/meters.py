"""The numbers that Prometheus reads. Labels have few values: never an id, a path or anything a client chose."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from warren.model.errors import WarrenError

_START_BUCKETS_S = (0.02, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Seconds around what SPEC.md promises for a create."""
_SLEEP_BUCKETS_S = (0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 15, 60, 300)
"""Seconds around what SPEC.md promises for a heap of 64 MiB; what is larger takes longer."""
_STEP_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 20)
_REQUEST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class Meters:
    """One set with a registry of its own, so that two servers in one process (tests) do not add up."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._before_render: list[Callable[[], None]] = []
        self.creates = Counter(
            "warren_creates", "Sandboxes asked for; code is ok or the error's", ["runtime", "code"], registry=registry
        )
        self.create_seconds = Histogram(
            "warren_create_seconds",
            "From the accepted request to a guest that answers",
            ["runtime"],
            buckets=_START_BUCKETS_S,
            registry=registry,
        )
        self.create_step_seconds = Histogram(
            "warren_create_step_seconds",
            "The steps of a create: admit, wait, slot, rules, layer, mounts, runtime, guest, init, store",
            ["runtime", "step"],
            buckets=_STEP_BUCKETS_S,
            registry=registry,
        )
        self.sleeps, self.sleep_seconds = _of_sleep(registry)
        self.ends = Counter("warren_ends", "Sandboxes that are gone, by reason", ["reason"], registry=registry)
        self.out_of_memory = Counter(
            "warren_out_of_memory", "Times a sandbox lost processes to its memory limit", ["runtime"], registry=registry
        )
        self.builds = Counter("warren_builds", "Template builds that ended", ["outcome"], registry=registry)
        self.running = Gauge("warren_sandboxes_running", "Sandboxes running now", ["runtime"], registry=registry)
        self.pool_ready = Gauge(
            "warren_pool_ready", "Spare sandboxes ready to be claimed", ["runtime"], registry=registry
        )
        self.pool_claims = Counter(
            "warren_pool_claims",
            "Creates that could be served from the pool; outcome is hit or miss",
            ["runtime", "outcome"],
            registry=registry,
        )
        self.unresponsive = Gauge(
            "warren_sandboxes_unresponsive", "Sandboxes running now whose guest does not answer", registry=registry
        )
        self.refusals = Counter(
            "warren_refusals",
            "Requests refused for want of a right (auth.refused, traffic.refused), and changes that were refused",
            ["kind"],
            registry=registry,
        )
        self.egress_denied = Counter(
            "warren_egress_denied_packets", "Packets that sandboxes sent and their rules refused", registry=registry
        )
        self.api_requests = Counter(
            "warren_api_requests", "REST requests", ["method", "route", "status"], registry=registry
        )
        self.api_seconds = Histogram(
            "warren_api_seconds",
            "Time to answer a REST request",
            ["method", "route"],
            buckets=_REQUEST_BUCKETS_S,
            registry=registry,
        )
        self.relays, self.relays_open, self.relayed_bytes = _of_gateway(registry)

    @contextmanager
    def sleeping(self, operation: str, runtime: str) -> Generator[None]:
        """Count what is done in this block, and time it when it goes well."""
        since = time.perf_counter()
        try:
            yield
        except Exception as error:
            code = error.code if isinstance(error, WarrenError) else WarrenError.code
            self.sleeps.labels(operation, runtime, code).inc()
            raise
        self.sleeps.labels(operation, runtime, "ok").inc()
        self.sleep_seconds.labels(operation, runtime).observe(time.perf_counter() - since)

    def before_render(self, callback: Callable[[], None]) -> None:
        """For who counts by itself, because a counter here is too slow for it, and adds up only when asked."""
        self._before_render.append(callback)

    def render(self) -> bytes:
        """The text that `GET /metrics` answers with, as `content_type`."""
        for callback in self._before_render:
            callback()
        return generate_latest(self._registry)


def _of_sleep(registry: CollectorRegistry) -> tuple[Counter, Histogram]:
    counted = Counter(
        "warren_sleeps",
        "Pauses, resumes, snapshots and forks; code is ok or the error's",
        ["operation", "runtime", "code"],
        registry=registry,
    )
    timed = Histogram(
        "warren_sleep_seconds",
        "What a pause, resume, snapshot or fork took that went well",
        ["operation", "runtime"],
        buckets=_SLEEP_BUCKETS_S,
        registry=registry,
    )
    return counted, timed


def _of_gateway(registry: CollectorRegistry) -> tuple[Counter, Gauge, Counter]:
    relays = Counter(
        "warren_gateway_relays",
        "Requests by kind (http, ws, api; none: refused before that was clear) and outcome",
        ["kind", "outcome"],
        registry=registry,
    )
    is_open = Gauge("warren_gateway_relays_open", "Requests under way", registry=registry)
    carried = Counter(
        "warren_gateway_bytes",
        "Bytes of bodies and frames, in towards sandboxes and API or out from them",
        ["direction"],
        registry=registry,
    )
    return relays, is_open, carried
