"""Room that is promised to work under way: what is judged one by one has to fit together too."""

import contextlib
import threading
from collections.abc import Callable, Generator

from warren.engine.oci.machine import MIB
from warren.model.errors import NoSpace


class Promises:
    """Of one kind of room, which `free` measures in bytes: `room` and `advice` say in words what it is. Thread-safe."""

    def __init__(self, room: str, free: Callable[[], int], advice: str) -> None:
        self._room, self._free, self._advice = room, free, advice
        self._held: list[tuple[int, Callable[[], int]]] = []
        self._changing = threading.Lock()

    @contextlib.contextmanager
    def hold(self, task: str, size: int, written: Callable[[], int]) -> Generator[None]:
        """Room for up to `size` bytes; `written` tells how many of them are there, and so not free any more.

        Raises NoSpace when there is not as much beside what others have been promised.
        """
        promise = size, written
        with self._changing:
            left = self._free() - sum(max(0, others - there()) for others, there in self._held)
            if size > left:
                raise NoSpace(
                    f"cannot {task}: that takes up to {size // MIB} MiB of {self._room}, "
                    f"and {max(0, left) // MIB} MiB are free; {self._advice}"
                )
            self._held.append(promise)
        try:
            yield
        finally:
            with self._changing:
                self._held.remove(promise)
