from dataclasses import replace
from datetime import UTC, datetime, timedelta

from warren.model import limits
from warren.model.server import Server, Sighting, sighted

A = Server("a", "one", datetime(2026, 1, 1, tzinfo=UTC))
B = replace(A, id="b")


def test_a_server_counts_as_away_after_so_many_looks_at_one_heartbeat() -> None:
    seen: dict[str, Sighting] = {}
    for _ in range(limits.SERVER_LOOKS_BEFORE_AWAY):
        seen = sighted(seen, [A])
        assert not seen["a"].is_away
    seen = sighted(seen, [A, B])
    assert seen["a"].is_away
    assert not seen["b"].is_away


def test_any_new_heartbeat_counts_even_one_from_the_past() -> None:
    seen = {"a": Sighting(A, limits.SERVER_LOOKS_BEFORE_AWAY)}
    back = replace(A, seen_at=A.seen_at - timedelta(hours=2))
    assert sighted(seen, [back]) == {"a": Sighting(back)}


def test_who_is_not_in_the_store_any_more_is_forgotten() -> None:
    assert sighted({"a": Sighting(A)}, []) == {}
