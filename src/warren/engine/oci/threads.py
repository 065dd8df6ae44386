"""Blocking work beside the event loop.

Each call gets a thread of its own: several of them change namespaces, which a thread of a pool must never keep.
It works in the context of its caller: what it logs belongs to the same request.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def on_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `function` on a new thread. A cancellation waits until the thread is done: what it does has a deadline."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # pyright: ignore[reportArgumentType]

    def work() -> None:
        try:
            result = function(*args, **kwargs)
        except BaseException as error:  # handed to the awaiting task, whatever it is
            loop.call_soon_threadsafe(settle, None, error)
        else:
            loop.call_soon_threadsafe(settle, result, None)

    name = f"engine-{getattr(function, '__name__', 'work')}"
    threading.Thread(target=copy_context().run, args=(work,), name=name, daemon=True).start()
    return await _finish(done)


async def to_the_end(work: Coroutine[object, object, T]) -> T:
    """Await `work` to its end, also when the awaiting task is cancelled meanwhile; the cancellation follows after."""
    return await _finish(asyncio.create_task(work))  # noqa: TID251  # awaited right here, whatever happens


async def _finish(work: asyncio.Future[T]) -> T:
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not work.cancelled():
            work.exception()  # taken, so that it is not reported as forgotten
        raise cancelled
    return work.result()


def in_passing_thread(work: Callable[[], T]) -> T:
    """Run `work` on a thread that ends after it, and takes with it the namespaces that it moved into."""
    results: list[T] = []
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            results.append(work())
        except BaseException as error:  # raised again by the waiting thread
            errors.append(error)

    thread = threading.Thread(target=copy_context().run, args=(guarded,), name="engine-namespace", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
