"""Whatever a guest says to the server or the command line: an answer within its bounds, or one known error."""

import asyncio
from contextlib import suppress

import pytest

from tests.fuzz.corpus import fuzzed
from warren.gateway.tunnel import Handshake, TunnelRefused
from warren.guest.envelope import End, FrameReader
from warren.guest.guestd import parse_logs
from warren.guest.process_event import Ended, Output, Started, decode
from warren.model import limits
from warren.model.errors import Unavailable

pytestmark = pytest.mark.threat("B8")


def is_plain(text: str, most: int) -> bool:
    """What every database takes and every answer can say."""
    text.encode()
    return len(text) <= most and "\0" not in text


@fuzzed("guest-log", usual=150)
def test_a_guest_s_log(data: bytes) -> None:
    logs = parse_logs(data, 2)
    assert logs.last >= 2
    assert len(logs.entries) <= limits.GUEST_LOG_BATCH + 1
    for entry in logs.entries:
        assert is_plain(entry.message, limits.LOG_MESSAGE_MAX)
        assert is_plain(entry.logger, limits.LOG_MESSAGE_MAX)
        assert all(is_plain(text, limits.LOG_MESSAGE_MAX) for pair in entry.fields.items() for text in pair)
        assert entry.at.utcoffset() is not None


def heard(pieces: list[bytes]) -> tuple[list[object], bool]:
    reader, events = FrameReader(), list[object]()
    try:
        for piece in pieces:
            for frame in reader.feed(piece):
                events.append(frame if isinstance(frame, End) else decode(frame.body))
    except Unavailable:
        return events, False
    return events, True


@fuzzed("connect-stream", usual=150)
def test_a_connect_stream(data: bytes) -> None:
    events, is_good = heard([data[at : at + 3] for at in range(0, len(data), 3)])
    for event in events:
        assert event is None or isinstance(event, Started | Output | Ended | End)
        if isinstance(event, Ended):
            assert 0 <= event.exit_code <= 255
    _, is_good_at_once = heard([data])
    assert is_good == is_good_at_once


@fuzzed("tunnel-head", usual=100)
def test_the_head_of_a_tunnel(data: bytes) -> None:
    async def shake() -> None:
        done: asyncio.Future[tuple[bytes, bytes]] = asyncio.get_running_loop().create_future()
        protocol = Handshake(done)
        for at in range(0, len(data), 7):
            protocol.data_received(data[at : at + 7])
        protocol.connection_lost(None)
        with suppress(TunnelRefused):
            head, rest = done.result()
            assert len(head) <= limits.GATEWAY_TUNNEL_HEAD_BYTES + 7
            assert data.startswith(head + b"\r\n\r\n" + rest)

    asyncio.run(shake())
