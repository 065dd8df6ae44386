"""Without an endpoint tracing costs nothing; with one that is dead it harms nobody."""

import subprocess
import sys
import time

import pytest

from tests.e2e.local_server import free_ports
from warren.telemetry import tracing

UNTRACED = """
import sys
import warren.wiring
from warren.telemetry import tracing
with tracing.span("x") as span:
    assert span is None and tracing.traceparent() is None
    tracing.took("y", 0.0, 1.0)
loaded = [name for name in sys.modules if name.startswith("opentelemetry")]
assert not loaded, loaded
"""


def test_without_an_endpoint_nothing_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", UNTRACED], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_a_dead_collector_stops_nobody() -> None:
    (port,) = free_ports(1)
    end = tracing.configure(f"http://127.0.0.1:{port}")
    try:
        with tracing.span("work", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", kind="test"):
            parent = tracing.traceparent()
            tracing.took("step", time.perf_counter() - 1, time.perf_counter())
    finally:
        end()
    assert parent is not None and parent.startswith("00-0af7651916cd43dd8448eb211c80319c-")
    assert tracing.traceparent() is None


@pytest.mark.parametrize("parent", ["", "x", "00-zz-1-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "é" * 999])
def test_a_parent_that_is_none_begins_a_trace(parent: str) -> None:
    (port,) = free_ports(1)
    end = tracing.configure(f"http://127.0.0.1:{port}")
    try:
        with tracing.span("work", parent):
            assert tracing.traceparent() is not None
    finally:
        end()
