"""REST calls to the server, with its errors as ours."""

from collections.abc import Iterator, Mapping
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
UPLOAD_DEADLINE_S = 600.0
"""Seconds without progress of an upload."""
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

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        return self._answer("GET", path, query=query).json()

    def count(self, path: str) -> int | None:
        """The total that a list of running things tells in its header."""
        total = self._answer("GET", path, query={"limit": 1}).headers.get("x-total-running", "")
        return int(total) if total.isdecimal() else None

    def post(self, path: str, body: Json) -> Any:
        answer = self._answer("POST", path, body=body)
        return answer.json() if answer.content else None

    def upload(self, url: str, content: IO[bytes], size: int, headers: Mapping[str, str]) -> None:
        """To a link that the server gave; it is signed, so the key stays here."""
        sent = {**headers, "Content-Length": str(size)}
        try:
            answer = self._client.put(url, content=content, headers=sent, timeout=UPLOAD_DEADLINE_S)
        except httpx.HTTPError as error:
            raise Unavailable(f"cannot upload to {self._address.api_url} ({printable(str(error))})") from None
        if not answer.is_success:
            raise refusal(answer.status_code, answer.content)

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
        self, method: str, path: str, query: Mapping[str, Any] | None = None, body: Json | None = None
    ) -> httpx.Response:
        url, headers = self._address.api_url, {"X-API-KEY": self._address.key()}
        try:
            answer = self._client.request(method, path, params=query, json=body, headers=headers)
        except httpx.TimeoutException:
            raise Unavailable(f"cannot get an answer from {url} in time; is it overloaded?") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            hint = "start it with `warren serve`" if self._address.is_local else "check E2B_API_URL"
            raise Unavailable(f"cannot reach the server at {url} ({printable(str(error))}): {hint}") from None
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
