"""OpenTelemetry spans, when an endpoint is configured. Otherwise nothing is imported and nothing is done."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from warren import __version__
from warren.model import limits
from warren.model.errors import BadRequest

PARENT = "traceparent"
"""Header of W3C Trace Context, towards us and from us."""


class _Off:
    tracer: Any = None
    carrier: Any = None


_state = _Off()
"""One per process, as its log is."""


def configure(endpoint: str) -> Callable[[], None]:
    """Send spans to `<endpoint>/v1/traces` (OTLP over HTTP); returns what ends it. Raises BadRequest."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    except ImportError:
        raise BadRequest("cannot send traces: install warren[tracing], or unset WARREN_OTLP_ENDPOINT") from None
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=limits.TRACE_EXPORT_DEADLINE_S)
    provider = TracerProvider(resource=Resource.create({"service.name": "warren", "service.version": __version__}))
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter, max_queue_size=limits.TRACE_QUEUE, schedule_delay_millis=limits.TRACE_EXPORT_PERIOD_S * 1000
        )
    )
    _state.tracer, _state.carrier = provider.get_tracer("warren", __version__), TraceContextTextMapPropagator()

    def end() -> None:
        _state.tracer = None
        provider.shutdown()

    return end


@contextmanager
def span(name: str, parent: str | None = None, **attributes: str | int) -> Generator[Any]:
    """A span around what is done inside, below `parent` (a `traceparent`) or the one that is open here.

    Gives None when nothing is traced, else OpenTelemetry's span.
    """
    if _state.tracer is None:
        yield None
        return
    above = None if parent is None else _state.carrier.extract({PARENT: parent})
    with _state.tracer.start_as_current_span(name, context=above, attributes=attributes) as started:
        yield started


def took(name: str, since: float, until: float) -> None:
    """A span below the open one for what is over; times of `time.perf_counter`."""
    if _state.tracer is None:
        return
    zero = time.time_ns() - int(time.perf_counter() * 1e9)
    done = _state.tracer.start_span(name, start_time=zero + int(since * 1e9))
    done.end(zero + int(until * 1e9))


def traceparent() -> str | None:
    """For the next in line; None when nothing is traced."""
    if _state.tracer is None:
        return None
    carrier: dict[str, str] = {}
    _state.carrier.inject(carrier)
    return carrier.get(PARENT)
