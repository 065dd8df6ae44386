import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.guest.process_event import Ended, Output, ProcessEvent, Started, decode
from warren.model.errors import Unavailable

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["event", "start", "data", "end", "pid", "stdout", "pty", "exited", "exitCode", "status"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("event", "meaning"),
    [
        ({"start": {"pid": 321}}, Started(321)),
        ({"data": {"stdout": encoded(b"a\x00\xff")}}, Output(b"a\x00\xff")),
        ({"data": {"stderr": encoded(b"b")}}, Output(b"b", is_error=True)),
        ({"data": {"pty": encoded(b"c")}}, Output(b"c")),
        ({"end": {"exited": True, "status": "exit status 0"}}, Ended(0)),
        ({"end": {"exited": True, "exitCode": 3, "status": "exit status 3"}}, Ended(3)),
        ({"end": {"exitCode": -1, "status": "signal: killed", "error": "signal: killed"}}, Ended(137)),
        ({"end": {"exitCode": -1, "status": "signal: terminated"}}, Ended(143)),
        ({"end": {"exitCode": -1, "status": "signal: segmentation fault (core dumped)"}}, Ended(139)),
        ({"end": {"exitCode": -1, "status": "something new"}}, Ended(137)),
        ({"keepalive": {}}, None),
        ({"data": {}}, None),
        ({"of a later version": {}}, None),
        ({}, None),
    ],
)
def test_events_mean_what_the_contract_says(event: dict[str, Any], meaning: ProcessEvent | None) -> None:
    assert decode({"event": event}) == meaning


@pytest.mark.parametrize(
    "event",
    [
        5,
        {"start": []},
        {"start": {"pid": "7"}},
        {"start": {"pid": 2**40}},
        {"data": {"stdout": "no base64!"}},
        {"data": {"stdout": 5}},
        {"end": {"exited": True, "exitCode": "0"}},
    ],
)
def test_what_is_no_event_is_refused(event: object) -> None:
    with pytest.raises(Unavailable, match="cannot understand"):
        decode({"event": event})


@given(st.dictionaries(st.sampled_from(["event", "x"]), JSON, max_size=2))
def test_any_json_is_an_event_or_a_named_error(message: dict[str, Any]) -> None:
    try:
        event = decode(message)
    except Unavailable:
        return
    if isinstance(event, Ended):
        assert 0 <= event.exit_code <= 255
