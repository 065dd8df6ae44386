"""The server is killed in the middle of what it does; the next one finds what was acknowledged, whole, and no more.

A few telling points of each operation; `make chaos` tries every one, on both runtimes.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.build_operations import build_operation
from tests.chaos.crash_points import DURING, CrashingServer, CrashPoint, crash
from tests.chaos.operations import OPERATIONS
from tests.chaos.sleep_operations import SLEEP_OPERATIONS
from tests.e2e.cleanliness import nothing_left
from tests.image_registry import image_registry

POINTS = (
    ("create_once", "crun", CrashPoint("after", "store.mark_running")),
    ("kill", "crun", CrashPoint("after", "runtime.delete")),
    ("expire", "crun", CrashPoint("after", "engine.destroy")),
    ("set_timeout", "crun", CrashPoint("after", "store.set_deadline")),
    ("set_network", "crun", CrashPoint("after", "engine.set_egress")),
    ("adopt_the_dead", "crun", CrashPoint("after", "store.mark_killing")),
    ("pause", "runsc", CrashPoint("before", "shelf.publish")),
    ("resume", "runsc", CrashPoint("after", "runtime.start")),
    ("snapshot", "crun", CrashPoint("before", "runtime.save")),
    ("fork", "crun", CrashPoint("after", "store.add_sandbox")),
    ("pause", "runsc", CrashPoint(DURING, "runsc.checkpoint", ms=15)),
    ("snapshot", "runsc", CrashPoint(DURING, "runsc.pause")),
    ("resume", "runsc", CrashPoint(DURING, "runsc.restore")),
)


@pytest.fixture(scope="module")
def crashing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrashingServer]:
    if os.geteuid() != 0:
        pytest.skip("sandboxes need root")
    # What runs and nobody owns is counted here, so no spares; `test_spares` kills a server that has some.
    local = CrashingServer(tmp_path_factory.mktemp("crash"), pool_slots=2, pool_sandboxes=0)
    with nothing_left(local), local:
        yield local


@pytest.mark.threat("E1")
@pytest.mark.parametrize(("name", "runtime", "point"), POINTS, ids=[f"{name}, {point}" for name, _, point in POINTS])
def test_a_crash_loses_and_leaves_nothing(crashing: CrashingServer, name: str, runtime: str, point: CrashPoint) -> None:
    operation = next(each for each in (*OPERATIONS, *SLEEP_OPERATIONS) if each.name == name)
    assert crash(crashing, operation, point, runtime), "the point lies on the way of the operation"


@pytest.mark.threat("E1")
@pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes need root")
def test_a_build_that_is_cut_off_succeeds_when_it_is_asked_for_again(tmp_path: Path) -> None:
    """Where its image is on the disk and nothing says so yet."""
    with image_registry(tmp_path / "registry") as registry:
        server = CrashingServer(tmp_path / "server", pool_slots=2, runtime="crun", registry_insecure=registry.host)
        with nothing_left(server), server:
            assert crash(server, build_operation(registry), CrashPoint("after", "engine.bake"), "crun")
