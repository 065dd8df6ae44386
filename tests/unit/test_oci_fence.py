"""The fence around a sandbox's memory, on trees that look like the kernel's."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.test_oci_cgroup import V1, V2, tree
from warren.engine.oci.cgroup import LOWER_STEP_BYTES, Cgroups
from warren.engine.oci.fence import HEADROOM_BYTES, STEP_BYTES, Fence, fence, to_free
from warren.model.errors import EngineFailed

LIMIT = 9000
QUIET = "low 0\nhigh 0\noom 0\noom_kill 0\n"


@pytest.fixture
def v1(tmp_path: Path) -> Callable[[bool], Fence]:
    files = {
        **V1,
        "memory/warren/box/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
        "memory/warren/box/cgroup.event_control": "",
    }
    return lambda guest_acts: fence(tree(tmp_path, files), "box", LIMIT, guest_acts=guest_acts)


@pytest.fixture
def v2(tmp_path: Path) -> Callable[[bool], Fence]:
    files = {**V2, "warren/box/memory.events": QUIET, "warren/box/memory.high": "max"}
    return lambda guest_acts: fence(tree(tmp_path, files), "box", LIMIT, guest_acts=guest_acts)


def test_dropping_cache_is_enough_or_there_is_some_clearance() -> None:
    assert to_free(usage=900, cache=0, limit=1000) == 0
    assert to_free(usage=1500, cache=600, limit=1000) == 0
    assert to_free(usage=1500, cache=400, limit=1000) == 100 + 1000 // 8


def test_on_v1_the_kernel_waits_for_the_guest(tmp_path: Path, v1: Callable[[bool], Fence]) -> None:
    memory = tmp_path / "memory/warren/box"
    standing = v1(True)
    control, number = (memory / "memory.oom_control"), standing.descriptor
    assert control.read_text() == "1"
    assert (memory / "cgroup.event_control").read_text().split()[0] == str(number)
    control.write_text("oom_kill_disable 1\nunder_oom 0\n")
    assert not standing.heard()
    os.eventfd_write(number, 2)
    control.write_text("oom_kill_disable 1\nunder_oom 1\n")
    assert standing.heard()
    standing.step()
    assert int((memory / "memory.limit_in_bytes").read_text()) == LIMIT + STEP_BYTES
    assert standing.put_back() == 0  # 5000 in use
    assert int((memory / "memory.limit_in_bytes").read_text()) == LIMIT
    standing.close()


def test_on_v1_steps_come_to_an_end(tmp_path: Path, v1: Callable[[bool], Fence]) -> None:
    standing = v1(True)
    for _ in range(HEADROOM_BYTES // STEP_BYTES * 2):
        standing.step()
    assert int((tmp_path / "memory/warren/box/memory.limit_in_bytes").read_text()) == LIMIT + HEADROOM_BYTES
    (tmp_path / "memory/warren/box/memory.usage_in_bytes").write_text("20000")
    assert standing.put_back() == 20000 - 2000 - LIMIT + LIMIT // 8
    standing.close()


def test_on_v1_a_kill_of_the_kernel_is_heard_once(tmp_path: Path, v1: Callable[[bool], Fence]) -> None:
    standing = v1(False)
    assert not standing.heard()
    os.eventfd_write(standing.descriptor, 1)
    assert standing.heard()
    assert not standing.heard()
    (tmp_path / "memory/warren/box/memory.oom_control").unlink()
    os.eventfd_write(standing.descriptor, 1)
    assert not standing.heard()  # the last event of a group is its removal
    standing.close()


def test_on_v2_the_soft_limit_stands_before_the_hard_one(tmp_path: Path, v2: Callable[[bool], Fence]) -> None:
    group = tmp_path / "warren/box"
    standing = v2(True)
    high = group / "memory.high"
    assert int(high.read_text()) == LIMIT
    assert int((group / "memory.max").read_text()) > LIMIT + HEADROOM_BYTES
    (group / "memory.events").write_text(QUIET.replace("high 0", "high 1"))
    assert not standing.heard()  # the kernel drops cache, and that is enough
    (group / "memory.events").write_text(QUIET.replace("high 0", "high 2"))
    (group / "memory.current").write_text("11000")
    assert standing.heard()
    assert not standing.heard()
    standing.step()
    assert int(high.read_text()) == LIMIT + STEP_BYTES
    (group / "memory.current").write_text("5000")
    assert standing.put_back() == 0
    assert int(high.read_text()) == LIMIT
    standing.close()


def test_on_v1_the_fence_stands_further_out_meanwhile(tmp_path: Path, v1: Callable[[bool], Fence]) -> None:
    limit, standing = tmp_path / "memory/warren/box/memory.limit_in_bytes", v1(True)
    with standing.headroom(700):
        assert int(limit.read_text()) == LIMIT + 700
        standing.step()
        assert standing.put_back() == 0
        assert int(limit.read_text()) == LIMIT + 700
    assert int(limit.read_text()) == LIMIT
    standing.close()


def test_on_v2_both_limits_stand_further_out_meanwhile(tmp_path: Path, v2: Callable[[bool], Fence]) -> None:
    group, standing = tmp_path / "warren/box", v2(True)

    def limits() -> tuple[int, int]:
        return int((group / "memory.high").read_text()), int((group / "memory.max").read_text())

    usual = limits()
    assert usual == (LIMIT, LIMIT + 2 * HEADROOM_BYTES)
    with standing.headroom(700):
        assert limits() == (LIMIT + 700, LIMIT + 700 + 2 * HEADROOM_BYTES)
        standing.step()
        assert standing.put_back() == 0
        assert limits() == (LIMIT + 700, LIMIT + 700 + 2 * HEADROOM_BYTES)
    assert limits() == usual
    (group / "memory.current").write_text("11000")
    standing.step()
    assert limits() == (LIMIT + STEP_BYTES, usual[1]), "there is room for all steps, as before"
    standing.close()


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_the_fence_is_back_before_the_sandbox_goes_on(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    standing = request.getfixturevalue(kind)(True)
    limit = tmp_path / ("memory/warren/box/memory.limit_in_bytes" if kind == "v1" else "warren/box/memory.high")
    with standing.headroom(700) as keep:
        keep(100)
        assert int(limit.read_text()) == LIMIT + 100, "of what lies in memory until it is sealed"
        keep(300)
        assert int(limit.read_text()) == LIMIT + 100
        keep(0)
        assert int(limit.read_text()) == LIMIT
    assert int(limit.read_text()) == LIMIT
    assert standing.put_back() == 0
    standing.close()


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_what_the_guest_has_yet_to_free_is_not_in_the_way(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    standing = request.getfixturevalue(kind)(True)
    limit = tmp_path / ("memory/warren/box/memory.limit_in_bytes" if kind == "v1" else "warren/box/memory.high")
    standing.step()
    with standing.headroom(700):  # the kernel would refuse a limit below what is in use
        assert int(limit.read_text()) == LIMIT + STEP_BYTES
    assert int(limit.read_text()) == LIMIT
    standing.close()


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_nothing_is_lent_where_the_kernel_ends_processes(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    standing = request.getfixturevalue(kind)(False)
    limit = tmp_path / ("memory/warren/box/memory.limit_in_bytes" if kind == "v1" else "warren/box/memory.max")
    with standing.headroom(700):
        assert int(limit.read_text()) == LIMIT
    standing.close()


@pytest.mark.parametrize("guest_acts", [False, True])
def test_a_new_fence_takes_back_what_an_earlier_server_lent(
    tmp_path: Path, v1: Callable[[bool], Fence], guest_acts: bool
) -> None:
    v1(guest_acts).close()
    limit = tmp_path / "memory/warren/box/memory.limit_in_bytes"
    standing = fence_after_a_crash(tmp_path, limit, guest_acts)
    assert int(limit.read_text()) == LIMIT
    standing.close()


def fence_after_a_crash(root: Path, limit: Path, guest_acts: bool) -> Fence:
    limit.write_text(str(LIMIT + 700))
    return fence(Cgroups("warren", root), "box", LIMIT, guest_acts=guest_acts)


def test_on_v2_nobody_is_ended_for_what_was_lent_by_an_earlier_server(
    tmp_path: Path, v2: Callable[[bool], Fence]
) -> None:
    v2(False).close()
    group = tmp_path / "warren/box"
    (group / "memory.current").write_text(str(LIMIT + 600))
    standing = fence_after_a_crash(tmp_path, group / "memory.max", guest_acts=False)
    assert (group / "memory.reclaim").read_text() == "600"
    assert int((group / "memory.max").read_text()) == LIMIT + 600 + LOWER_STEP_BYTES
    assert (group / "memory.high").read_text() == "max"
    standing.close()


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_a_sandbox_may_end_meanwhile(tmp_path: Path, request: pytest.FixtureRequest, kind: str) -> None:
    standing = request.getfixturevalue(kind)(True)
    with standing.headroom(700):
        shutil.rmtree(tmp_path)
    standing.close()


def test_on_v2_a_kill_of_the_kernel_is_heard_once(tmp_path: Path, v2: Callable[[bool], Fence]) -> None:
    standing = v2(False)
    assert (tmp_path / "warren/box/memory.high").read_text() == "max"
    (tmp_path / "warren/box/memory.events").write_text(QUIET.replace("oom_kill 0", "oom_kill 1"))
    assert standing.heard()
    assert not standing.heard()
    standing.close()


def test_a_group_that_is_not_there_has_no_fence(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="box"):
        fence(tree(tmp_path, {}), "box", LIMIT, guest_acts=True)
