"""Refused packets are told in sums, and only what is new."""

import pytest

from warren.audit.memory import MemoryAudit
from warren.control.clock import SystemClock
from warren.control.denials import Denials, fresh
from warren.engine.fake.engine import FakeEngine
from warren.engine.oci.firewall import parse_drops
from warren.model.audit import Kind
from warren.telemetry.meters import Meters

LISTED = """{"nftables": [{"metainfo": {}}, {"set": {"name": "dropped", "elem": [
{"elem": {"val": "198.18.0.2", "counter": {"packets": 7, "bytes": 420}}}]}}]}"""


@pytest.mark.anyio
async def test_each_look_tells_what_came_since_the_last() -> None:
    engine, audit, meters = FakeEngine(), MemoryAudit(), Meters()
    denials = Denials(engine=engine, clock=SystemClock(), audit=audit, meters=meters)
    for counts in ({}, {"i1": 5}, {"i1": 5}, {"i1": 7, "i2": 1}, {"i2": 1}):
        engine.denied = counts
        await denials.look()
    assert [(event.kind, event.subject, event.details["packets"]) for event in audit.events] == [
        (Kind.EGRESS_DENIED, "sandbox:i1", 5),
        (Kind.EGRESS_DENIED, "sandbox:i1", 2),
        (Kind.EGRESS_DENIED, "sandbox:i2", 1),
    ]
    assert "warren_egress_denied_packets_total 8.0" in meters.render().decode()


def test_a_count_that_began_anew_counts_from_nothing() -> None:
    assert fresh({"a": 9, "b": 2}, {"a": 3, "b": 0, "c": 1}) == {"a": 3, "c": 1}


def test_the_kernel_s_list_is_read() -> None:
    assert parse_drops(LISTED) == {"198.18.0.2": 7}
    assert parse_drops('{"nftables": [{"set": {"name": "dropped"}}]}') == {}
