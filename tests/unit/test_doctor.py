"""The doctor's checks, against machines that are made up."""

import io
import json
from dataclasses import dataclass, field, replace

import pytest
from rich.console import Console

from warren.doctor import as_json, examine, render
from warren.doctor.finding import Finding
from warren.settings import Settings

V1 = "cgroup /sys/fs/cgroup/{0} cgroup rw,nosuid,{0} 0 0\n"
V2 = "cgroup2 {0} cgroup2 rw,nosuid 0 0\n"


@dataclass(frozen=True)
class MadeUp:
    """A machine that has everything; tests take away."""

    kernel: str = "6.1.0-18-amd64"
    uid: int = 0
    missing: frozenset[str] = frozenset()
    modules: frozenset[str] = frozenset({"erofs", "overlay", "ext4"})
    syscalls: bool = True
    free: int = 100 << 30
    files: int = 65536
    names: bool = True
    taken: frozenset[int] = frozenset()
    built: tuple[str, ...] = ("base-0123456789abcdef",)
    module_version: str | None = None
    texts: dict[str, str] = field(
        default_factory=lambda: {
            "/proc/self/mounts": V2.format("/sys/fs/cgroup"),
            "/sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
            "/proc/sys/user/max_user_namespaces": "1000\n",
            "/proc/sys/kernel/seccomp/actions_avail": "kill_process errno allow\n",
            "/proc/sys/net/ipv4/ip_forward": "1\n",
            "/proc/meminfo": "MemTotal:       8000000 kB\n",
        }
    )
    outputs: dict[str, str | None] = field(
        default_factory=lambda: {
            "crun": "crun version 1.8.1\ncommit: x",
            "runsc": "runsc version 20260905035102-160f\n",
        }
    )

    def release(self) -> str:
        return self.kernel

    def euid(self) -> int:
        return self.uid

    def text(self, path: str) -> str | None:
        return self.texts.get(path)

    def exists(self, path: str) -> bool:
        return path not in self.missing

    def which(self, program: str) -> str | None:
        return None if program in self.missing else f"/usr/bin/{program.rsplit('/')[-1]}"

    def output(self, *command: str) -> str | None:
        program = command[0].rsplit("/")[-1]
        return None if program in self.missing else self.outputs.get(program, "")

    def has_module(self, module: str) -> bool:
        return module in self.modules

    def go_module_version(self, binary: str, module: str) -> str | None:
        return self.module_version

    def knows_syscall(self, number: int) -> bool:
        return self.syscalls

    def free_bytes(self, path: str) -> int:
        return self.free

    def open_files(self) -> int:
        return self.files

    def resolves(self, name: str) -> bool:
        return self.names

    def can_listen(self, host: str, port: int) -> bool:
        return port not in self.taken

    def templates(self, folder: str) -> tuple[str, ...]:
        return self.built


GOOD = MadeUp()
SETTINGS = Settings(runsc_path="runsc", guestd_path="guestd")


def finding(machine: MadeUp, name: str) -> Finding:
    return next(found for found in examine(machine, SETTINGS) if found.name == name)


def test_a_whole_machine_has_nothing_to_do() -> None:
    assert [found.name for found in examine(GOOD, SETTINGS) if not found.ok] == []


def test_every_requirement_says_why_and_what_to_do() -> None:
    findings = examine(GOOD, SETTINGS)
    assert all(found.why and found.remedy for found in findings)
    assert len({found.name for found in findings}) == len(findings)


@pytest.mark.parametrize(
    ("machine", "name", "blocks"),
    [
        (replace(GOOD, kernel="5.10.0-30-amd64"), "kernel", True),
        (replace(GOOD, kernel="weird"), "kernel", True),
        (replace(GOOD, uid=1000), "root", True),
        (replace(GOOD, modules=frozenset({"overlay", "ext4"})), "file systems", True),
        (replace(GOOD, syscalls=False), "idmapped mounts", True),
        (replace(GOOD, texts={}), "user namespaces", True),
        (replace(GOOD, texts={}), "seccomp", True),
        (replace(GOOD, texts={}), "cgroups", True),
        (replace(GOOD, texts={}), "memory", False),
        (replace(GOOD, texts={}), "ip_forward", False),
        (replace(GOOD, missing=frozenset({"/dev/loop-control"})), "loop devices", True),
        (replace(GOOD, missing=frozenset({"unshare"})), "network devices", True),
        (replace(GOOD, missing=frozenset({"nft"})), "nftables", True),
        (replace(GOOD, missing=frozenset({"mkfs.erofs"})), "tools", True),
        (replace(GOOD, missing=frozenset({"crun"})), "crun", True),
        (replace(GOOD, missing=frozenset({"runsc"})), "runsc (gVisor)", True),
        (replace(GOOD, missing=frozenset({"guestd"})), "guestd", True),
        (replace(GOOD, built=()), "template base", True),
        (replace(GOOD, built=("desktop-01",)), "template base", True),
        (replace(GOOD, free=1 << 30), "disk", False),
        (replace(GOOD, files=1024), "open files", False),
        (replace(GOOD, names=False), "*.localhost", False),
        (replace(GOOD, taken=frozenset({3000})), "ports", False),
    ],
)
def test_what_is_missing_is_found(machine: MadeUp, name: str, blocks: bool) -> None:
    found = finding(machine, name)
    assert not found.ok
    assert found.blocks is blocks


@pytest.mark.parametrize(
    ("mounts", "found", "ok"),
    [
        (V2.format("/sys/fs/cgroup"), "v2: cpu, memory, pids", True),
        (V1.format("cpu") + V1.format("memory") + V1.format("pids"), "v1: cpu, memory, pids", True),
        (
            V1.format("cpu") + V1.format("memory") + V1.format("pids") + V2.format("/sys/fs/cgroup/unified"),
            "hybrid: cpu, memory, pids",
            True,
        ),
        (V1.format("cpu") + V1.format("pids"), "v1: cpu, pids", False),
        ("", None, False),
    ],
)
def test_each_cgroup_layout_is_told(mounts: str, found: str | None, ok: bool) -> None:
    told = finding(replace(GOOD, texts={**GOOD.texts, "/proc/self/mounts": mounts}), "cgroups")
    assert (told.found, told.ok) == (found, ok)


@pytest.mark.parametrize(
    ("stamped", "module", "ok"),
    [
        ("runsc version release-20261019.0\nspec: 1.2.1", None, True),
        ("runsc version release-20221107.0\nspec: 1.0.2", None, False),
        ("runsc version VERSION_MISSING\nspec: 1.2.1", "v0.0.0-20260905035102-160fafc42237", True),
        ("runsc version VERSION_MISSING\nspec: 1.2.1", "v0.0.0-20250101000000-000000000000", False),
        ("runsc version VERSION_MISSING\nspec: 1.2.1", None, False),
    ],
)
def test_runsc_is_judged_by_its_date(stamped: str, module: str | None, ok: bool) -> None:
    machine = replace(GOOD, outputs={**GOOD.outputs, "runsc": stamped}, module_version=module)
    assert finding(machine, "runsc (gVisor)").ok is ok


def test_the_table_names_the_remedy_only_where_one_is_needed() -> None:
    def shown(machine: MadeUp) -> str:
        text = io.StringIO()
        render(examine(machine, SETTINGS), Console(file=text, width=200))
        return text.getvalue()

    assert "what to do" not in shown(GOOD)
    assert "boot a kernel of 5.19" in shown(replace(GOOD, kernel="5.10.0"))


def test_json_carries_every_finding() -> None:
    rows = json.loads(as_json(examine(GOOD, SETTINGS)))
    assert {row["weight"] for row in rows} == {"required", "advised"}
    assert set(rows[0]) == {"name", "found", "ok", "why", "remedy", "weight"}
