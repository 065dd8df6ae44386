"""The measures, one function each: a target in, samples out."""

import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bench.samples import Samples, available_mib, mib_per_s, milliseconds
from bench.target import Box, Target
from bench.warren_target import WarrenTarget

MIB = 1024 * 1024
WARREN = frozenset({"crun", "runsc"})
IDLE_FEW = 20
IDLE_MANY = {"crun": 200, "runsc": 60}
"""Idle sandboxes at once; gVisor's kernels are larger, and this many still fit beside everything else."""
ALIVE = {1: WARREN, 50: WARREN, 200: frozenset({"crun"})}
"""Sandboxes alive when the last of them is created, and on which runtimes that is measured."""
BURST_SMALL, BURST_LARGE, BURST_POOL = 10, 50, 100
SPARES = 20
SETTLE_S = 3.0
"""Seconds that memory gets to settle: page cache of the start and pools being refilled."""
AT_ONCE = 8
"""Creates in flight while a crowd is brought up: what the server works on at the same time."""


@dataclass(frozen=True)
class Row:
    """`aim` is what SPEC.md promises per runtime, on two cores. `only`: the targets that the row is for; empty: all."""

    name: str
    unit: str
    take: Callable[[Target, float], Samples]
    aim: dict[str, float]
    higher_is_better: bool = False
    only: frozenset[str] = frozenset()


def count(base: int, scale: float) -> int:
    """How often to do what is done `base` times at scale 1; at least three times."""
    return max(3, round(base * scale))


def first_echo(target: Target, scale: float) -> Samples:
    def once() -> float:
        made: list[Box] = []
        target.settle()
        try:
            return milliseconds(lambda: _create_and_echo(target, made))
        finally:
            for box in made:
                box.delete()

    return Samples().measure(count(15, scale), once)


def _create_and_echo(target: Target, made: list[Box]) -> None:
    made.append(target.create())
    made[-1].echo()


def create(target: Target, scale: float) -> Samples:
    def once() -> float:
        made: list[Box] = []
        target.settle()
        try:
            return milliseconds(lambda: made.append(target.create()))
        finally:
            for box in made:
                box.delete()

    return Samples().measure(count(15, scale), once)


def delete(target: Target, scale: float) -> Samples:
    def once() -> float:
        box = target.create()
        box.echo()
        return milliseconds(box.delete)

    return Samples().measure(count(10, scale), once)


def on_one_box(times: int, action: Callable[[Box], object]) -> Callable[[Target, float], Samples]:
    def take(target: Target, scale: float) -> Samples:
        box = target.create()
        try:
            action(box)
            return Samples().measure(count(times, scale), lambda: milliseconds(lambda: action(box)))
        finally:
            box.delete()

    return take


def writing(size: int, times: int) -> Callable[[Target, float], Samples]:
    def take(target: Target, scale: float) -> Samples:
        data, box = secrets.token_bytes(size), target.create()
        try:
            box.write(data)
            return Samples().measure(count(times, scale), lambda: mib_per_s(size, lambda: box.write(data)))
        finally:
            box.delete()

    return take


def reading(size: int, times: int) -> Callable[[Target, float], Samples]:
    def take(target: Target, scale: float) -> Samples:
        box = target.create()
        try:
            box.write(secrets.token_bytes(size))
            box.read(size)
            return Samples().measure(count(times, scale), lambda: mib_per_s(size, lambda: box.read(size)))
        finally:
            box.delete()

    return take


def burst(size: int, times: int) -> Callable[[Target, float], Samples]:
    """All of them from the first call until the last has echoed."""

    def take(target: Target, scale: float) -> Samples:
        def once() -> float:
            made: list[Box] = []
            target.settle()
            try:
                return milliseconds(lambda: _crowd(target, made, size, size))
            finally:
                _delete_all(made)

        return Samples().measure(max(1, round(times * scale)), once)

    return take


def burst_each(size: int) -> Callable[[Target, float], Samples]:
    """What each one of a burst waits from its call until it has echoed."""

    def take(target: Target, scale: float) -> Samples:
        del scale
        made: list[Box] = []
        target.settle()
        try:
            with ThreadPoolExecutor(size) as pool:
                done = [pool.submit(milliseconds, lambda: _create_and_echo(target, made)) for _ in range(size)]
            failures = [str(error) for one in done if (error := one.exception()) is not None]
            return Samples([one.result() for one in done if one.exception() is None], failures)
        finally:
            _delete_all(made)

    return take


def _crowd(target: Target, made: list[Box], size: int, at_once: int) -> None:
    with ThreadPoolExecutor(at_once) as pool:
        for done in [pool.submit(_create_and_echo, target, made) for _ in range(size)]:
            done.result()


def _delete_all(made: list[Box]) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(box.delete) for box in made]:
            done.result()


def idle_memory(size: int, times: int) -> Callable[[Target, float], Samples]:
    """What one of many idle ones takes: the fall of MemAvailable, after all have run a command, by their number."""

    def take(target: Target, scale: float) -> Samples:
        def once() -> float:
            made: list[Box] = []
            warm = target.create()
            warm.echo()
            warm.delete()
            time.sleep(SETTLE_S)
            before = available_mib()
            try:
                _crowd(target, made, size, AT_ONCE)
                time.sleep(SETTLE_S)
                return (before - available_mib()) / size
            finally:
                _delete_all(made)

        return Samples().measure(max(1, round(times * scale)), once)

    return take


def among(alive: int) -> str:
    """Name of the row."""
    return f"create the last of {alive}"


def create_among(alive: int, times: int) -> Callable[[Target, float], Samples]:
    """Creating the last of `alive` sandboxes."""

    def take(target: Target, scale: float) -> Samples:
        others: list[Box] = []
        try:
            _crowd(target, others, alive - 1, AT_ONCE)
            time.sleep(SETTLE_S)
            return create(target, scale * times / 15)
        finally:
            _delete_all(others)

    return take


ROWS = (
    Row("create", "ms", create, {"crun": 60, "runsc": 250}),
    Row("create -> first echo", "ms", first_echo, {}),
    Row("warm true", "ms", on_one_box(60, lambda box: box.true()), {"crun": 6, "runsc": 25}),
    Row("warm bash -l -c true", "ms", on_one_box(40, lambda box: box.login_true()), {}),
    Row("write 1 MiB", "MiB/s", writing(MIB, 20), {}, higher_is_better=True),
    Row("read 1 MiB", "MiB/s", reading(MIB, 20), {}, higher_is_better=True),
    Row("write 64 MiB", "MiB/s", writing(64 * MIB, 5), {"crun": 150, "runsc": 150}, higher_is_better=True),
    Row("read 64 MiB", "MiB/s", reading(64 * MIB, 5), {"crun": 250, "runsc": 250}, higher_is_better=True),
    Row(f"burst of {BURST_SMALL}, all echoed", "ms", burst(BURST_SMALL, 3), {}),
    Row(f"burst of {BURST_LARGE}, all echoed", "ms", burst(BURST_LARGE, 2), {"crun": 3000}, only=WARREN),
    Row("delete", "ms", delete, {}),
    Row(f"memory per idle one, at {IDLE_FEW}", "MiB", idle_memory(IDLE_FEW, 3), {}),
    *(
        Row(f"memory per idle one, at {size}", "MiB", idle_memory(size, 1), aim, only=frozenset(aim))
        for size, aim in ((IDLE_MANY["crun"], {"crun": 12.0}), (IDLE_MANY["runsc"], {"runsc": 40.0}))
    ),
    *(Row(among(alive), "ms", create_among(alive, 10), {}, only=only) for alive, only in ALIVE.items()),
)


def claim(target: Target, scale: float) -> Samples:
    """The server's own part of a create: from the request on a connection that is there until 201."""
    assert isinstance(target, WarrenTarget)
    with target.connected() as connection:

        def once() -> float:
            target.settle()
            made: list[str] = []
            taken = milliseconds(lambda: made.append(connection.create()))
            connection.kill(made[0])
            return taken

        return Samples().measure(count(30, scale), once)


POOL_ROWS = (
    Row("claim, until 201", "ms", claim, {"crun": 10, "runsc": 10}),
    Row("create, from the pool", "ms", create, {}),
    Row("create -> first echo, from the pool", "ms", first_echo, {"crun": 25, "runsc": 45}),
    Row(f"burst of {BURST_POOL}, pool of {SPARES}", "ms", burst(BURST_POOL, 1), {}),
    Row(f"one of a burst of {BURST_POOL}", "ms", burst_each(BURST_POOL), {"crun": 1000}),
)
"""Taken on a server whose pool keeps SPARES of each runtime, full before each sample, and with a network slot ahead for
each of the burst."""
