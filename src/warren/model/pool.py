"""How many spare sandboxes to keep started ahead, and of which kind: by what was asked for lately, within a budget."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from warren.model import limits
from warren.model.errors import BadRequest
from warren.model.sandbox import Resources


@dataclass(frozen=True, slots=True)
class Kind:
    """Spares of one kind are interchangeable: what cannot be changed once a sandbox has started is part of it."""

    template_id: str
    digest: str
    runtime: str
    resources: Resources
    build_id: str = ""
    """Builds with one and the same image can have different services."""


@dataclass(frozen=True, slots=True)
class Floor:
    """Spares to keep whatever is asked for: `template` by name or id, `runtime` None for the server's default."""

    template: str
    runtime: str | None
    count: int


@dataclass(frozen=True, slots=True)
class Budget:
    """All spares together: their number, and MiB of the memory that they are promised."""

    sandboxes: int
    memory_mb: int


def parse_floors(words: Sequence[str]) -> tuple[Floor, ...]:
    """`base=2` or `base/crun=2`. Raises BadRequest."""
    return tuple(_floor(word) for word in words)


def _floor(word: str) -> Floor:
    name, equals, count = word.partition("=")
    template, slash, runtime = name.rpartition("/") if "/" in name else (name, "", "")
    if not (equals and template and count.isascii() and count.isdecimal()) or (slash and not runtime):
        raise BadRequest(f"cannot use WARREN_POOL entry {word!r}: write template=count or template/runtime=count")
    return Floor(template, runtime or None, int(count))


@dataclass
class Demand:
    """Remembers the creates of late, for a bounded number of kinds, and says how many came at once."""

    _asked: dict[Kind, deque[datetime]] = field(default_factory=dict["Kind", "deque[datetime]"])

    def note(self, kind: Kind, now: datetime) -> None:
        times = self._asked.pop(kind, None) or deque(maxlen=limits.POOL_BURST_REMEMBERED)
        times.append(now)
        self._asked[kind] = times  # now the youngest
        if len(self._asked) > limits.POOL_KINDS_REMEMBERED:
            del self._asked[next(iter(self._asked))]

    def bursts(self, now: datetime) -> dict[Kind, int]:
        """For each kind, the most creates that came within one burst during the remembered time."""
        horizon = now - timedelta(seconds=limits.POOL_MEMORY_S)
        for kind, times in list(self._asked.items()):
            while times and times[0] < horizon:
                times.popleft()
            if not times:
                del self._asked[kind]
        return {kind: _largest_burst(times) for kind, times in self._asked.items()}


@dataclass
class Rush:
    """Creates that come one after the other: starting spares beside them would slow them down. Times in seconds."""

    _first: float | None = None
    _last: float = 0.0

    def note(self, now: float) -> None:
        self._first = now if self._first is None else self._first
        self._last = now

    def left(self, now: float) -> float:
        """How long to wait until nobody has asked for a moment; not for ever while they keep asking."""
        if self._first is None:
            return 0.0
        return max(0.0, min(self._last + limits.POOL_QUIET_S, self._first + limits.POOL_RUSH_S) - now)

    def over(self) -> None:
        """The pool is full again."""
        self._first = None


def _largest_burst(times: Sequence[datetime]) -> int:
    span, first, most = timedelta(seconds=limits.POOL_BURST_S), 0, 0
    for last, time in enumerate(times):
        while time - times[first] > span:
            first += 1
        most = max(most, last - first + 1)
    return most


def targets(floors: Mapping[Kind, int], bursts: Mapping[Kind, int], budget: Budget) -> dict[Kind, int]:
    """How many spares of each kind to have: floors first, then one of each kind in turn while the budget lasts."""
    wanted = {kind: max(floors.get(kind, 0), bursts.get(kind, 0)) for kind in (*floors, *bursts)}
    found: dict[Kind, int] = dict.fromkeys(wanted, 0)
    sandboxes, memory = budget.sandboxes, budget.memory_mb
    for goal in (floors, wanted):
        growing = True
        while growing:
            growing = False
            for kind in wanted:
                if found[kind] < goal.get(kind, 0) and sandboxes > 0 and memory >= kind.resources.memory_mb:
                    found[kind] += 1
                    sandboxes -= 1
                    memory -= kind.resources.memory_mb
                    growing = True
    return found
