"""Reading and removing cgroups on all three layouts, on trees that look like the kernel's."""

from pathlib import Path

import pytest

from warren.engine.oci.cgroup import Cgroups, CgroupUsage
from warren.model.errors import EngineFailed

V1 = {
    "memory/warren/box/memory.usage_in_bytes": "5000",
    "memory/warren/box/memory.limit_in_bytes": "9000",
    "memory/warren/box/memory.stat": "cache 1\ntotal_cache 3000\ntotal_shmem 1000\n",
    "memory/warren/box/cgroup.procs": "12\n34\n",
    "cpuacct/warren/box/cpuacct.usage": "2500000000",
    "pids/warren/box/cgroup.procs": "34\n56\n",
}
V2 = {
    "cgroup.controllers": "cpu memory pids",
    "warren/box/memory.current": "5000",
    "warren/box/memory.max": "9000",
    "warren/box/memory.stat": "anon 1\nfile 3000\nshmem 1000\n",
    "warren/box/cpu.stat": "usage_usec 2500000\nuser_usec 1\n",
    "warren/box/cgroup.procs": "12\n",
}
HYBRID = {**V1, "unified/cgroup.procs": "", "unified/warren/box/cgroup.procs": "78\n"}


def tree(root: Path, files: dict[str, str]) -> Cgroups:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Cgroups("warren", root)


@pytest.mark.parametrize("files", [V1, HYBRID, V2], ids=["v1", "hybrid", "v2"])
def test_usage_is_read_from_every_layout(tmp_path: Path, files: dict[str, str]) -> None:
    assert tree(tmp_path, files).usage("box") == CgroupUsage(cpu_seconds=2.5, memory=5000, cache=2000)


def test_layouts_are_told_apart(tmp_path: Path) -> None:
    kinds = [tree(tmp_path / name, files) for name, files in (("1", V1), ("h", HYBRID), ("2", V2))]
    assert [(kind.is_v2, kind.is_hybrid) for kind in kinds] == [(False, False), (False, True), (True, False)]


@pytest.mark.parametrize("files", [V1, V2], ids=["v1", "v2"])
def test_usage_of_a_missing_group_fails_with_its_name(tmp_path: Path, files: dict[str, str]) -> None:
    with pytest.raises(EngineFailed, match="gone"):
        tree(tmp_path, files).usage("gone")


def test_memory_is_raised_with_swap_first(tmp_path: Path) -> None:
    tree(tmp_path, {**V1, "memory/warren/box/memory.memsw.limit_in_bytes": "9000"}).set_memory("box", 9500)
    assert (tmp_path / "memory/warren/box/memory.limit_in_bytes").read_text() == "9500"
    assert (tmp_path / "memory/warren/box/memory.memsw.limit_in_bytes").read_text() == "9500"


def test_memory_is_raised_on_v2(tmp_path: Path) -> None:
    tree(tmp_path, V2).set_memory("box", 9500)
    assert (tmp_path / "warren/box/memory.max").read_text() == "9500"


def test_processes_of_all_controllers_are_found(tmp_path: Path) -> None:
    assert tree(tmp_path, HYBRID).pids("box") == {12, 34, 56, 78}


def test_groups_are_listed_and_removed_with_their_children(tmp_path: Path) -> None:
    cgroups = tree(tmp_path, {})
    (tmp_path / "memory/warren/box/inner").mkdir(parents=True)
    (tmp_path / "pids/warren/other").mkdir(parents=True)
    assert cgroups.children() == {"box", "other"}
    cgroups.remove("box")
    assert cgroups.children() == {"other"}
    cgroups.remove("box")


def test_a_group_that_stays_in_use_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warren.engine.oci.cgroup.REMOVE_DEADLINE_S", 0.01)
    with pytest.raises(EngineFailed, match="still holds"):
        tree(tmp_path, V1).remove("box")  # plain files stand for what the kernel would not let go


def test_all_sandboxes_together_weigh_less_than_the_server(tmp_path: Path) -> None:
    tree(tmp_path / "1", {"cpu/warren/cpu.shares": "1024"}).open_parent()
    assert (tmp_path / "1/cpu/warren/cpu.shares").read_text() == "512"
    tree(tmp_path / "2", {"cgroup.controllers": "cpu", "warren/cpu.weight": "100"}).open_parent()
    assert (tmp_path / "2/warren/cpu.weight").read_text() == "50"


def test_commands_that_nobody_waits_for_weigh_next_to_nothing_beside_the_sandboxes(tmp_path: Path) -> None:
    v1 = tree(tmp_path / "1", {"cpu/cgroup.procs": ""})
    v1.open_parent()
    assert v1.background == tmp_path / "1/cpu/warren_background/tasks"
    assert int((v1.background.parent / "cpu.shares").read_text()) <= 512 / 4
    v2 = tree(tmp_path / "2", {"cgroup.controllers": "cpu"})
    v2.open_parent()
    assert v2.background == tmp_path / "2/warren_background/cgroup.procs"
    assert int((v2.background.parent / "cpu.weight").read_text()) <= 50 / 4


def test_a_sandbox_is_given_its_weight(tmp_path: Path) -> None:
    tree(tmp_path / "1", {"cpu/warren/box/cpu.shares": "128"}).set_shares("box", 2048)
    assert (tmp_path / "1/cpu/warren/box/cpu.shares").read_text() == "2048"
    tree(tmp_path / "2", {"cgroup.controllers": "cpu", "warren/box/cpu.weight": "5"}).set_shares("box", 262144)
    assert (tmp_path / "2/warren/box/cpu.weight").read_text() == "10000"
    with pytest.raises(EngineFailed, match="cannot set the weight"):
        tree(tmp_path / "3", {"cpu/warren/box": "no folder"}).set_shares("box", 2)
