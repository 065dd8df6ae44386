"""Rounds of create, use and kill, several at once, while guests, sentries and the server itself are killed at random.

What use is made of a sandbox is a `Deed`: a few words with it, or sleep and copies.

A round that goes wrong is forgiven when a fault came in its way: its own sandbox was a victim, or the server went down
meanwhile. Anything else is a finding.
"""

import math
import os
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from e2b import Sandbox

from tests.e2e.local_server import LocalServer

RUNTIMES = ("crun", "runsc")
LIFE_S = 300
STEP_S = 60.0
FAULT_EVERY_S = 1.5
SERVER_FAULT_EVERY = 8
"""Every so many faults it is the server that dies."""
GROWTH_BYTES = 32 * 1024 * 1024
"""What the server may have grown by, beyond a tenth: its caches fill."""
SLOWER = 1.5
"""Ratio of create times, last to first hundred, that still counts as flat."""
COMPARED = 100
COPIES = 2


@dataclass(frozen=True, slots=True)
class Round:
    """`took_s` is the time of the create; `error` is empty when all went well."""

    number: int
    runtime: str
    began: float
    ended: float
    took_s: float = 0.0
    error: str = ""
    forgiven: bool = False


@dataclass
class Outcome:
    rounds: list[Round] = field(default_factory=list[Round])
    faults: dict[str, int] = field(default_factory=lambda: {"server": 0, "guest": 0})
    memory: list[int] = field(default_factory=list[int])
    """Of the server, in bytes, since it was last started: when it had done a tenth of its rounds, and at the end."""

    @property
    def wrong(self) -> list[Round]:
        return [each for each in self.rounds if each.error and not each.forgiven]

    @property
    def grew_by(self) -> int:
        return self.memory[-1] - self.memory[0] if self.memory else 0

    @property
    def is_flat(self) -> bool:
        return not self.memory or self.grew_by <= self.memory[0] // 10 + GROWTH_BYTES

    def can_compare(self, runtime: str) -> bool:
        """Whether there are a first and a last hundred: fewer say more about the machine than about the server."""
        return len(self._times(runtime)) >= 2 * COMPARED

    def _times(self, runtime: str) -> list[float]:
        return [each.took_s for each in self.rounds if each.runtime == runtime and not each.error]

    def create_times(self, runtime: str) -> tuple[float, float]:
        """Medians of the first and the last hundred."""
        times = self._times(runtime)
        count = min(COMPARED, max(1, len(times) // 2))
        return (statistics.median(times[:count]), statistics.median(times[-count:])) if times else (0.0, 0.0)


Deed = Callable[[LocalServer, Sandbox, str], None]
"""Gets a text that is the round's own."""


def write_and_read(_: LocalServer, sandbox: Sandbox, text: str) -> None:
    sandbox.files.write("/tmp/round", text, request_timeout=STEP_S)
    said = sandbox.commands.run("cat /tmp/round", timeout=STEP_S, request_timeout=STEP_S).stdout
    assert said == text, f"{said!r} is not {text!r}"


def sleep_and_fork(server: LocalServer, sandbox: Sandbox, text: str) -> None:
    """Asleep, awake, copied; the copies are asked and killed."""
    write_and_read(server, sandbox, text)
    assert Sandbox.pause(sandbox.sandbox_id, request_timeout=STEP_S, **server.options)
    Sandbox.connect(sandbox.sandbox_id, timeout=LIFE_S, request_timeout=STEP_S, **server.options)
    copies = sandbox.fork(count=COPIES, timeout=LIFE_S, request_timeout=STEP_S)
    try:
        for one in (sandbox, *copies):
            assert isinstance(one, Sandbox), f"not a copy: {one}"
            assert one.files.read("/tmp/round", request_timeout=STEP_S) == text
    finally:
        for copy in copies:
            if isinstance(copy, Sandbox):
                copy.kill(request_timeout=STEP_S)


class Chaos:
    """Runs rounds against a server that it may kill."""

    def __init__(
        self,
        server: LocalServer,
        workers: int,
        seed: int,
        deed: Deed = write_and_read,
        fault_every_s: float = FAULT_EVERY_S,
    ) -> None:
        self._server, self._workers = server, workers
        self._deed, self._fault_every_s = deed, fault_every_s
        self._random = random.Random(seed)  # the same faults again for the same seed
        self._lock = threading.Lock()
        self._standing = threading.Lock()
        """Held by who needs the server up, and by who takes it down."""
        self._alive: set[str] = set()
        self._victims: set[str] = set()
        self._downs: list[tuple[float, float]] = []
        self.outcome = Outcome()

    def run(
        self,
        count: int,
        *,
        server_dies: bool,
        progress: Callable[[int], None] = lambda _: None,
        within_s: float = math.inf,
    ) -> None:
        """`count` rounds, or as many as can be begun in time."""
        first, end = len(self.outcome.rounds), time.monotonic() + within_s
        numbers, over = iter(range(first, first + count)), threading.Event()
        self._measure_memory(reset=True)

        def work() -> None:
            while time.monotonic() < end and (number := self._next(numbers)) is not None:
                done = self._round(number)
                with self._lock:
                    self.outcome.rounds.append(done)
                    finished = len(self.outcome.rounds) - first
                if finished == max(1, count // 10):
                    self._measure_memory(reset=True)
                progress(finished)

        workers = [threading.Thread(target=work) for _ in range(self._workers)]
        faults = threading.Thread(target=self._faults, args=(over, server_dies))
        for thread in (*workers, faults):
            thread.start()
        for thread in workers:
            thread.join()
        over.set()
        faults.join()
        self._measure_memory(reset=False)
        self._judge(first)

    def _next(self, numbers: Iterator[int]) -> int | None:
        with self._lock:
            return next(numbers, None)

    def _round(self, number: int) -> Round:
        with self._standing:  # one that began without a server would only be counted
            runtime, began = RUNTIMES[number % len(RUNTIMES)], time.monotonic()
        sandbox: Sandbox | None = None
        took = 0.0
        try:
            sandbox = Sandbox.create(
                timeout=LIFE_S, api_headers={"X-Warren-Runtime": runtime}, retries=0, request_timeout=STEP_S,
                **self._server.options,
            )  # fmt: skip
            took = time.monotonic() - began
            self._enter(sandbox.sandbox_id)
            self._deed(self._server, sandbox, f"round {number}\n")
            assert sandbox.kill(request_timeout=STEP_S), "it was there, and is gone"
            error = ""
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"[:300]
        with self._lock:
            if sandbox is not None:
                self._alive.discard(sandbox.sandbox_id)
            forgiven = sandbox is not None and sandbox.sandbox_id in self._victims
        return Round(number, runtime, began, time.monotonic(), took, error, forgiven)

    def _enter(self, sandbox_id: str) -> None:
        with self._lock:
            self._alive.add(sandbox_id)

    def _faults(self, over: threading.Event, server_dies: bool) -> None:
        while not over.wait(self._random.uniform(0.2, 2 * self._fault_every_s)):
            total = sum(self.outcome.faults.values())
            if server_dies and total % SERVER_FAULT_EVERY == SERVER_FAULT_EVERY // 2:
                self._kill_server()
            else:
                self._kill_guest()

    def _kill_server(self) -> None:
        down = time.monotonic()
        with self._standing:
            self._server.kill()
            self._server.start()
        self._downs.append((down, time.monotonic()))
        self.outcome.faults["server"] += 1

    def _kill_guest(self) -> None:
        with self._lock:
            if not self._alive:
                return
            sandbox_id = self._random.choice(sorted(self._alive))
            self._victims.add(sandbox_id)
        with suppress(OSError):  # it may be gone by now
            self._server.end_process_of(sandbox_id)
        self.outcome.faults["guest"] += 1

    def _measure_memory(self, *, reset: bool) -> None:
        with self._standing:
            if reset:
                self.outcome.memory.clear()
            self.outcome.memory.append(resident(self._server.pid))

    def _judge(self, first: int) -> None:
        """Rounds that met a server that was down are forgiven."""
        for index in range(first, len(self.outcome.rounds)):
            each = self.outcome.rounds[index]
            if each.error and any(each.began < up and each.ended > down for down, up in self._downs):
                self.outcome.rounds[index] = replace(each, forgiven=True)


def resident(pid: int) -> int:
    """Bytes of a process in memory."""
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def summary(outcome: Outcome) -> Sequence[str]:
    done, wrong = len(outcome.rounds), outcome.wrong
    forgiven = sum(each.forgiven and bool(each.error) for each in outcome.rounds)
    lines = [
        f"rounds: {done}, of which {forgiven} met a fault and {len(wrong)} went wrong without one",
        f"faults: {outcome.faults['server']} of the server, {outcome.faults['guest']} of guests and sentries",
        f"server's memory: {outcome.memory[0] >> 20} MiB, then {outcome.memory[-1] >> 20} MiB",
    ]
    for runtime in RUNTIMES:
        first, last = outcome.create_times(runtime)
        lines.append(f"create under {runtime}: first {first * 1000:.0f} ms, last {last * 1000:.0f} ms")
    lines += [f"WRONG round {each.number} ({each.runtime}): {each.error}" for each in wrong[:20]]
    return lines
