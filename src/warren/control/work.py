"""Background work of the server, all of it children of one task group.

Whatever outlives a request (a start whose client went away, a watch for a death) is spawned here; closing waits
for none of it and leaves none behind.
"""

import asyncio
from collections.abc import Coroutine
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any, Self, TypeVar

import structlog

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Work:
    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await self._group.__aexit__(kind, error, trace)

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T | None]:
        """Run in the background, for no request. A failure is logged and does not take the server down."""
        return self._start(coroutine, name, Context())

    def _start(self, coroutine: Coroutine[Any, Any, T], name: str, context: Context) -> asyncio.Task[T | None]:
        task = self._group.create_task(_logged(coroutine, name), name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: coroutine.close())  # it may have been cancelled before its first step
        return task

    def begin(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Future[T]:
        """Run in the background and hand out the outcome, which any number of callers may await, shielded.

        It is part of the request that began it: its log lines carry that one's id.
        """
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def settle(_: object) -> None:
            coroutine.close()
            outcome.cancel()  # does nothing to one that is done

        self._start(_deliver(coroutine, outcome), name, copy_context()).add_done_callback(settle)
        return outcome

    async def finish(self, coroutine: Coroutine[Any, Any, T], name: str) -> T:
        """Await work that goes on to its end also when the caller is cancelled."""
        return await asyncio.shield(self.begin(coroutine, name))


async def _logged(coroutine: Coroutine[Any, Any, T], name: str) -> T | None:
    try:
        return await coroutine
    except Exception:
        log.exception("background work failed", work=name)
        return None


async def _deliver(coroutine: Coroutine[Any, Any, T], outcome: asyncio.Future[T]) -> None:
    try:
        outcome.set_result(await coroutine)
    except Exception as error:  # handed to whoever waits
        outcome.set_exception(error)
        outcome.exception()  # nobody may be waiting any more: that is no news
