"""What a guest says about its log is taken with tongs."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from warren.guest.guestd import parse_logs
from warren.model import limits
from warren.model.observation import Level

GOOD = {"seq": 3, "timestamp": "2026-01-01T00:00:00.123456789Z", "level": "warn", "logger": "process", "message": "hi"}


def document(*entries: Any) -> bytes:
    return json.dumps({"entries": entries}).encode()


def test_an_entry_is_read_whole() -> None:
    logs = parse_logs(document({**GOOD, "fields": {"pid": "7"}}), 2)
    (entry,) = logs.entries
    assert logs.last == 3
    assert (entry.level, entry.logger, entry.message, entry.fields) == (Level.WARN, "process", "hi", {"pid": "7"})
    assert entry.at.microsecond == 123456


def test_entries_seen_before_or_out_of_order_are_left_out() -> None:
    logs = parse_logs(document(GOOD, GOOD, {**GOOD, "seq": 1}), 2)
    assert len(logs.entries) == 1
    assert parse_logs(document(GOOD), 3).entries == ()


def test_long_messages_and_many_fields_are_cut() -> None:
    huge = {**GOOD, "message": "x" * 100_000, "fields": {str(n): "y" * 100_000 for n in range(100)}}
    (entry,) = parse_logs(document(huge), 0).entries
    assert len(entry.message) == limits.LOG_MESSAGE_MAX
    assert len(entry.fields) == 16
    assert all(len(value) <= limits.LOG_MESSAGE_MAX for value in entry.fields.values())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.binary())
def test_bytes_never_raise(answer: bytes) -> None:
    assert parse_logs(answer, 5).last >= 5


@given(JSON)
def test_documents_never_raise(answer: Any) -> None:
    assert parse_logs(json.dumps(answer).encode(), 5).last >= 5


@given(st.fixed_dictionaries({}, optional={key: JSON for key in [*GOOD, "fields"]}))
def test_entries_of_any_form_never_raise(entry: dict[str, Any]) -> None:
    assert parse_logs(document({**GOOD, **entry}), 0).last >= 0


def test_deep_nesting_does_not_raise() -> None:
    assert parse_logs(b'{"entries":' + b"[" * 200_000, 1).entries == ()


def test_entries_that_were_lost_are_counted() -> None:
    lost, entry = parse_logs(document({**GOOD, "seq": 12}), 2).entries
    assert (lost.level, lost.logger, lost.message.split()[0]) == (Level.WARN, "warren", "9")
    assert entry.at == lost.at
    assert len(parse_logs(document({**GOOD, "seq": 12}), 0).entries) == 1  # a server that begins has lost nothing
