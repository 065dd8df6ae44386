"""A neighbour's `true` beside a sandbox at its worst, as many times as it takes beside an idle one."""

from collections.abc import Callable

from bench.rows import Row, count
from bench.samples import Samples
from bench.target import Target
from bench.warren_target import WarrenBox, WarrenTarget
from tests.security.hogs import beside, let_loose

AIM = {"crun": 3.0, "runsc": 3.0}


def _beside(kind: str) -> Callable[[Target, float], Samples]:
    def take(target: Target, scale: float) -> Samples:
        assert isinstance(target, WarrenTarget)
        quiet = target.create()

        def once() -> float:
            hog: WarrenBox = target.create()
            try:
                return beside(quiet.sandbox, lambda: let_loose(hog.sandbox, kind)).ratio
            finally:
                hog.delete()

        try:
            return Samples().measure(count(3, scale), once)
        finally:
            quiet.delete()

    return take


ROWS = tuple(
    Row(f"true beside {name}", "x", _beside(kind), AIM)
    for name, kind in (("16 spinners", "processors"), ("a fork bomb", "processes"), ("a full disk", "disk"))
)
