"""REST calls to the server, with its errors as ours."""

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import IO, Any, Self, cast

import httpx

from warren import __version__
from warren.cli.address import Address, is_loopback
from warren.model.errors import NotFound, Unauthenticated, Unavailable, WarrenError
from warren.telemetry.redaction import printable

CONNECT_DEADLINE_S = 5.0
ANSWER_DEADLINE_S = 65.0
"""Seconds; the server answers every create within 60, also with an error."""
TRANSFER_DEADLINE_S = 600.0
"""Seconds without progress of an upload or a download."""
PIECE_BYTES = 256 * 1024
"""Of a transfer."""
PAGE = 100
PAGES_MAX = 1000
"""Pages of one list; a server that goes on beyond 100,000 rows has lost its way."""

Json = dict[str, Any]


class Rest:
    def __init__(self, address: Address, transport: httpx.BaseTransport | None = None) -> None:
        self._address = address
        self._client = httpx.Client(
            base_url=address.api_url,
            headers={"User-Agent": f"warren/{__version__}"},
            timeout=httpx.Timeout(ANSWER_DEADLINE_S, connect=CONNECT_DEADLINE_S),
            trust_env=not is_loopback(address.api_url),  # no proxy on the way to this machine itself
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._client.close()

    def is_up(self) -> bool:
        try:
            return self._client.get("/health", timeout=CONNECT_DEADLINE_S).is_success
        except httpx.HTTPError:
            return False

    def get(self, path: str, query: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None) -> Any:
        return self._answer("GET", path, query=query, headers=headers).json()

    def count(self, path: str) -> int | None:
        """The total that a list of running things tells in its header."""
        total = self._answer("GET", path, query={"limit": 1}).headers.get("x-total-running", "")
        return int(total) if total.isdecimal() else None

    def post(self, path: str, body: Json) -> Any:
        answer = self._answer("POST", path, body=body)
        return answer.json() if answer.content else None

    def put(self, path: str, body: Json) -> Any:
        return self._answer("PUT", path, body=body).json()

    def upload(
        self,
        url: str,
        content: IO[bytes],
        size: int | None,
        headers: Mapping[str, str],
        query: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        """To where a link or a token of the server's leads, so the key stays here. size None: until it ends."""
        sent = dict(headers) if size is None else {**headers, "Content-Length": str(size)}
        pieces = iter(lambda: content.read(PIECE_BYTES), b"")
        with self._reached():
            answer = self._client.put(url, content=pieces, headers=sent, params=query, timeout=TRANSFER_DEADLINE_S)
        return _accepted(answer)

    def download(self, path: str, query: Mapping[str, Any], headers: Mapping[str, str]) -> Iterator[bytes]:
        """A file, in pieces."""
        with (
            self._reached(),
            self._client.stream("GET", path, params=query, headers=headers, timeout=TRANSFER_DEADLINE_S) as answer,
        ):
            if not answer.is_success:
                answer.read()
            yield from _accepted(answer).iter_bytes(PIECE_BYTES)

    def delete(self, path: str) -> None:
        self._answer("DELETE", path)

    def pages(self, path: str, query: Mapping[str, Any]) -> Iterator[Json]:
        """Every row of a list that has pages."""
        asked = {**query, "limit": PAGE}
        for _ in range(PAGES_MAX):
            answer = self._answer("GET", path, query=asked)
            yield from answer.json()
            token = answer.headers.get("x-next-token")
            if not token:
                return
            asked["nextToken"] = token

    def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Json | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        sent = {"X-API-KEY": self._address.key()} if headers is None else dict(headers)
        with self._reached():
            answer = self._client.request(method, path, params=query, json=body, headers=sent)
        return _accepted(answer)

    @contextmanager
    def _reached(self) -> Generator[None]:
        url = self._address.api_url
        try:
            yield
        except httpx.TimeoutException:
            raise Unavailable(f"cannot get an answer from {url} in time; is it overloaded?") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            hint = "start it with `warren serve`" if self._address.is_local else "check E2B_API_URL"
            raise Unavailable(f"cannot reach the server at {url} ({printable(str(error))}): {hint}") from None


def _accepted(answer: httpx.Response) -> httpx.Response:
    if not answer.is_success:
        raise refusal(answer.status_code, answer.content)
    return answer


def inner(row: Json, name: str) -> Json:
    """An object inside an object; empty when it is not there."""
    found = row.get(name)
    return cast("Json", found) if isinstance(found, dict) else {}


def refusal(status: int, body: bytes) -> WarrenError:
    """The error that the server meant. What is no error body of ours came from something in between."""
    said, code = _parse(body)
    if said is None:
        return Unavailable(f"cannot understand the server's answer (status {status}): is this a Warren server?")
    if status == 401:
        return Unauthenticated(f"{said} (the key comes from E2B_API_KEY, else from the state folder)")
    message = printable(said)
    for error in _tree(WarrenError):
        if error.code == code:
            return error(message)
    return NotFound(message) if status == 404 else WarrenError(message)


def _parse(body: bytes) -> tuple[str | None, str | None]:
    try:
        parsed: object = httpx.Response(200, content=body).json()
    except ValueError:
        return None, None
    if not isinstance(parsed, dict):
        return None, None
    fields = cast("dict[str, object]", parsed)
    message, code = fields.get("message"), fields.get("error_code")
    return (message if isinstance(message, str) else None), (code if isinstance(code, str) else None)


def _tree(base: type[WarrenError]) -> Iterator[type[WarrenError]]:
    for error in base.__subclasses__():
        yield error
        yield from _tree(error)
