"""The measures, one function each: a target in, samples out."""

import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bench.samples import Samples, available_mib, mib_per_s, milliseconds
from bench.target import Box, Target

MIB = 1024 * 1024
IDLE_SANDBOXES = 20
BURST = 10
SETTLE_S = 3.0
"""Seconds that memory gets to settle: page cache of the start and pools being refilled."""


@dataclass(frozen=True)
class Row:
    """`aim` is what SPEC.md promises per runtime, on two cores; `better` says in which direction."""

    name: str
    unit: str
    take: Callable[[Target, float], Samples]
    aim: dict[str, float]
    higher_is_better: bool = False


def _count(base: int, scale: float) -> int:
    return max(3, round(base * scale))


def first_echo(target: Target, scale: float) -> Samples:
    def once() -> float:
        made: list[Box] = []
        try:
            return milliseconds(lambda: _create_and_echo(target, made))
        finally:
            for box in made:
                box.delete()

    return Samples().measure(_count(15, scale), once)


def _create_and_echo(target: Target, made: list[Box]) -> None:
    made.append(target.create())
    made[-1].echo()


def create(target: Target, scale: float) -> Samples:
    def once() -> float:
        made: list[Box] = []
        try:
            return milliseconds(lambda: made.append(target.create()))
        finally:
            for box in made:
                box.delete()

    return Samples().measure(_count(15, scale), once)


def delete(target: Target, scale: float) -> Samples:
    def once() -> float:
        box = target.create()
        box.echo()
        return milliseconds(box.delete)

    return Samples().measure(_count(10, scale), once)


def on_one_box(times: int, action: Callable[[Box], object]) -> Callable[[Target, float], Samples]:
    def take(target: Target, scale: float) -> Samples:
        box = target.create()
        try:
            action(box)
            return Samples().measure(_count(times, scale), lambda: milliseconds(lambda: action(box)))
        finally:
            box.delete()

    return take


def writing(size: int, times: int) -> Callable[[Target, float], Samples]:
    def take(target: Target, scale: float) -> Samples:
        data, box = secrets.token_bytes(size), target.create()
        try:
            box.write(data)
            return Samples().measure(_count(times, scale), lambda: mib_per_s(size, lambda: box.write(data)))
        finally:
            box.delete()

    return take


def reading(size: int, times: int) -> Callable[[Target, float], Samples]:
    def take(target: Target, scale: float) -> Samples:
        box = target.create()
        try:
            box.write(secrets.token_bytes(size))
            box.read(size)
            return Samples().measure(_count(times, scale), lambda: mib_per_s(size, lambda: box.read(size)))
        finally:
            box.delete()

    return take


def burst(target: Target, scale: float) -> Samples:
    """All of them from the first call until the last has echoed."""

    def once() -> float:
        made: list[Box] = []

        def all_at_once() -> None:
            with ThreadPoolExecutor(BURST) as pool:
                for done in [pool.submit(_create_and_echo, target, made) for _ in range(BURST)]:
                    done.result()

        try:
            return milliseconds(all_at_once)
        finally:
            for box in made:
                box.delete()

    return Samples().measure(_count(3, scale), once)


def idle_memory(target: Target, scale: float) -> Samples:
    """What one of twenty idle ones takes from the machine, after all have run a command."""

    def once() -> float:
        made: list[Box] = []
        warm = target.create()
        warm.echo()
        time.sleep(SETTLE_S)
        before = available_mib()
        try:
            for _ in range(IDLE_SANDBOXES):
                _create_and_echo(target, made)
            time.sleep(SETTLE_S)
            return (before - available_mib()) / IDLE_SANDBOXES
        finally:
            for box in (*made, warm):
                box.delete()

    return Samples().measure(max(1, round(3 * scale)), once)


ROWS = (
    Row("create", "ms", create, {"crun": 60, "runsc": 250}),
    Row("create -> first echo", "ms", first_echo, {}),
    Row("warm true", "ms", on_one_box(60, lambda box: box.true()), {"crun": 6, "runsc": 25}),
    Row("warm bash -l -c true", "ms", on_one_box(40, lambda box: box.login_true()), {}),
    Row("write 1 MiB", "MiB/s", writing(MIB, 20), {}, higher_is_better=True),
    Row("read 1 MiB", "MiB/s", reading(MIB, 20), {}, higher_is_better=True),
    Row("write 64 MiB", "MiB/s", writing(64 * MIB, 5), {"crun": 150, "runsc": 150}, higher_is_better=True),
    Row("read 64 MiB", "MiB/s", reading(64 * MIB, 5), {"crun": 250, "runsc": 250}, higher_is_better=True),
    Row(f"burst of {BURST}, all echoed", "ms", burst, {}),
    Row("delete", "ms", delete, {}),
    Row(f"memory per idle one, at {IDLE_SANDBOXES}", "MiB", idle_memory, {}),
)
