import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.gateway import heads
from warren.gateway.heads import Forwarding, Framing, MalformedHead, RequestLine

ABOUT = Forwarding("inner", "outer", "192.0.2.1", "https")
TOKENS = st.from_regex(rb"[A-Za-z0-9-]{1,12}", fullmatch=True)
RAW = st.lists(st.tuples(TOKENS, st.binary(max_size=20)), max_size=8)


def request(headers: heads.RawHeaders) -> list[bytes]:
    return heads.request_head(RequestLine("GET", "/x"), headers, ABOUT, Framing(), b"close").split(b"\r\n")


def test_what_is_said_about_the_client_replaces_what_it_says_itself() -> None:
    sent = [(b"host", b"liar"), (b"X-Forwarded-For", b"liar"), (b"Forwarded", b"liar"), (b"X-Warren-Control", b"x")]
    assert request(sent) == [
        b"GET /x HTTP/1.1",
        b"Host: inner",
        b"X-Forwarded-For: 192.0.2.1",
        b"X-Forwarded-Host: outer",
        b"X-Forwarded-Proto: https",
        b"Connection: close",
        b"",
        b"",
    ]


def test_what_the_connection_header_names_ends_here() -> None:
    lines = request([(b"Connection", b"x-one, X-Two"), (b"X-One", b"1"), (b"x-two", b"2"), (b"X-Three", b"3")])
    assert b"X-Three: 3" in lines
    assert not any(line.lower().startswith((b"x-one", b"x-two")) for line in lines)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"Content-Length", b"1"), (b"Transfer-Encoding", b"chunked")],
        [(b"Content-Length", b"1"), (b"Content-Length", b"1")],
        [(b"Content-Length", b"1, 1")],
        [(b"Content-Length", b"+1")],
        [(b"Content-Length", b"0x1")],
        [(b"Content-Length", b"")],
        [(b"Content-Length", b"9" * 30)],
        [(b"Transfer-Encoding", b"gzip, chunked")],
        [(b"Transfer-Encoding", b"chunked"), (b"transfer-encoding", b"chunked")],
        [(b"Transfer-Encoding", b"identity")],
        [(b"Transfer-Encoding", b"chunked\x0b")],
    ],
)
def test_an_end_that_two_could_read_differently_is_refused(headers: heads.RawHeaders) -> None:
    with pytest.raises(MalformedHead):
        heads.request_framing(headers)


def test_a_length_or_chunks_are_a_frame() -> None:
    assert heads.request_framing([]) == Framing()
    assert heads.request_framing([(b"content-length", b"12")]) == Framing(length=12)
    assert heads.request_framing([(b"Transfer-Encoding", b"Chunked")]) == Framing(chunked=True)


@pytest.mark.parametrize(
    ("method", "status", "chunked", "http10", "frame"),
    [
        ("GET", 200, False, False, Framing(length=5)),
        ("GET", 200, True, False, Framing(chunked=True)),
        ("GET", 200, True, True, Framing()),
        ("HEAD", 200, False, False, Framing(length=5)),
        ("GET", 204, False, False, Framing()),
        ("GET", 304, False, False, Framing()),
        ("GET", 101, False, False, Framing()),
    ],
)
def test_the_frame_of_an_answer(method: str, status: int, chunked: bool, http10: bool, frame: Framing) -> None:
    raw = [(b"Content-Length", b"5")]
    assert heads.response_framing(method, status, raw, chunked=chunked, http10=http10) == frame


@pytest.mark.parametrize("bad", [b"a\rb", b"a\nb", b"a\0b", b"a\x7fb"])
def test_control_characters_are_not_passed_on(bad: bytes) -> None:
    with pytest.raises(MalformedHead):
        heads.response_head(200, "OK", [(b"X", bad)], Framing(), None)
    with pytest.raises(MalformedHead):
        request([(b"X-" + bad, b"v")])


@given(RAW, RAW)
def test_no_header_can_end_a_head_or_start_another(first: heads.RawHeaders, second: heads.RawHeaders) -> None:
    for build in (
        lambda raw: heads.response_head(200, "OK", raw, Framing(length=1), b"close"),
        lambda raw: heads.request_head(RequestLine("GET", "/"), raw, ABOUT, Framing(chunked=True), b"close"),
    ):
        try:
            head = build([*first, *second])
        except MalformedHead:
            continue
        assert head.endswith(b"\r\n\r\n")
        assert head.count(b"\r\n\r\n") == 1
        assert b"\n" not in head.replace(b"\r\n", b"")
        assert head.lower().count(b"\r\ncontent-length:") + head.lower().count(b"\r\ntransfer-encoding:") == 1


@given(st.binary(max_size=200))
def test_a_reason_stays_on_its_line(reason: bytes) -> None:
    head = heads.response_head(200, reason.decode("utf-8", "surrogateescape"), [], Framing(), None)
    assert head.count(b"\n") == 2
