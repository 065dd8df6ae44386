import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.guest.envelope import FRAME_MAX, End, FrameReader, Message, encode
from warren.model.errors import Unavailable

BODIES = st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9), max_size=3), max_size=5)


def frame(flags: int, payload: bytes) -> bytes:
    return struct.pack(">BI", flags, len(payload)) + payload


@given(BODIES, st.data())
def test_frames_survive_any_cut_of_the_stream(bodies: list[dict[str, object]], data: st.DataObject) -> None:
    stream = b"".join(encode(body) for body in bodies) + frame(2, b"{}")
    reader, seen = FrameReader(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        seen += reader.feed(stream[:size])
        stream = stream[size:]
    assert seen == [*(Message(body) for body in bodies), End()]


@given(st.lists(st.binary(max_size=40), max_size=4))
def test_whatever_comes_is_a_frame_or_a_named_error(chunks: list[bytes]) -> None:
    reader = FrameReader()
    try:
        for chunk in chunks:
            reader.feed(chunk)
    except Unavailable as error:
        assert error.message.startswith("cannot")


@pytest.mark.parametrize(
    ("flags", "payload"),
    [(1, b"{}"), (4, b"{}"), (0, b"nope"), (0, b"[]"), (0, b"[" * 100_000), (2, b'{"error": 5}'), (0, b"\xff")],
)
def test_what_is_no_frame_of_ours_is_refused(flags: int, payload: bytes) -> None:
    with pytest.raises(Unavailable, match="cannot understand"):
        FrameReader().feed(frame(flags, payload))


def test_a_frame_that_would_fill_the_memory_is_refused_at_its_head() -> None:
    with pytest.raises(Unavailable, match="cannot understand"):
        FrameReader().feed(struct.pack(">BI", 0, FRAME_MAX + 1))


def test_the_end_tells_why() -> None:
    error = {"error": {"code": "not_found", "message": "process with pid 5 not found"}}
    assert FrameReader().feed(frame(2, json.dumps(error).encode())) == [
        End("not_found", "process with pid 5 not found")
    ]
