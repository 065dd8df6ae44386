"""Without an endpoint tracing costs nothing; with one that is dead it harms nobody."""

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from warren.model import limits
from warren.telemetry import tracing

UNTRACED = """
import sys
import warren.gateway.server, warren.telemetry.steps
from warren.telemetry import tracing
with tracing.span("x") as span:
    assert span is None and tracing.traceparent() is None
    tracing.took("y", 0.0, 1.0)
loaded = [name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))]
assert not loaded, loaded
"""


def test_without_an_endpoint_nothing_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", UNTRACED], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def dead_collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(limits, "TRACE_EXPORT_DEADLINE_S", 0.1)
    end = tracing.configure("http://127.0.0.1:1")
    yield
    end()
    assert tracing.traceparent() is None


@pytest.mark.usefixtures("dead_collector")
def test_a_dead_collector_stops_nobody() -> None:
    with tracing.span("work", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", kind="test"):
        parent = tracing.traceparent()
        tracing.took("step", time.perf_counter() - 1, time.perf_counter())
    assert parent is not None and parent.startswith("00-0af7651916cd43dd8448eb211c80319c-")


@pytest.mark.usefixtures("dead_collector")
def test_a_parent_that_is_none_begins_a_trace() -> None:
    for parent in ("", "x", "00-zz-1-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "é" * 999):
        with tracing.span("work", parent):
            assert tracing.traceparent() is not None
