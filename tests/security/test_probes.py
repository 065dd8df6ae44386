"""Attacks from inside a sandbox of a real server, as root and as `user`; each asserts that its neighbour still works.

One program runs them all in one batch for each runtime and user (`probes/`); here is what came of it, row by row.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from e2b import SandboxException

from tests.security.inside import PLACE, USERS, Finding, InSandbox, Inside, probe
from warren.settings import Settings

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

HOST_SWITCHES = (
    "kernel/core_pattern", "kernel/modprobe", "kernel/hostname", "kernel/domainname", "kernel/sysrq",
    "kernel/threads-max", "kernel/yama/ptrace_scope", "kernel/unprivileged_bpf_disabled", "vm/panic_on_oom",
    "vm/overcommit_memory", "fs/suid_dumpable", "net/ipv4/ip_local_port_range", "net/core/somaxconn",
)  # fmt: skip


def host_state() -> Mapping[str, str]:
    """What no probe may have changed: switches of the host's kernel, and the programs that run sandboxes."""
    switches = {name: Path("/proc/sys", name) for name in HOST_SWITCHES}
    settings = Settings()
    programs = (Path(settings.runsc), Path("/usr/bin/crun"), Path(settings.guestd))
    values = {name: path.read_text() for name, path in switches.items() if path.exists()}
    return values | {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in programs if path.exists()}


@pytest.fixture(scope="module")
def everything(inside: Inside, runtime: str) -> Mapping[str, list[Finding]]:
    """user -> what was found, and under "host" what changed outside meanwhile."""
    before = host_state()
    found = {user: probe(inside, runtime, user) for user in USERS}
    after = host_state()
    changed = [{"name": name, "held": False, "detail": "changed"} for name in before if after.get(name) != before[name]]
    return {**found, "host": changed}


@pytest.fixture(params=USERS)
def holes(everything: Mapping[str, list[Finding]], request: pytest.FixtureRequest) -> Callable[[str], list[str]]:
    def of(row: str) -> list[str]:
        mine = [finding for finding in everything[request.param] if finding["row"] == row]
        assert mine, f"nothing was tried for {row}"
        return [f"{finding['name']}: {finding['detail']}" for finding in mine if not finding["held"]]

    return of


@pytest.mark.threat("A1")
def test_processes_of_the_host_are_out_of_reach(holes: Callable[[str], list[str]]) -> None:
    assert holes("A1") == []


@pytest.mark.threat("A2")
def test_mounts_and_namespaces_stay_as_they_are(holes: Callable[[str], list[str]]) -> None:
    assert holes("A2") == []


@pytest.mark.threat("A3")
def test_controls_of_the_kernel_are_out_of_reach(holes: Callable[[str], list[str]]) -> None:
    assert holes("A3") == []


@pytest.mark.threat("A4")
def test_devices_are_ours(holes: Callable[[str], list[str]]) -> None:
    assert holes("A4") == []


@pytest.mark.threat("A5")
def test_dangerous_calls_are_refused(holes: Callable[[str], list[str]]) -> None:
    assert holes("A5") == []


@pytest.mark.threat("A6")
def test_guestd_and_the_runtime_are_not_rewritten(holes: Callable[[str], list[str]]) -> None:
    assert holes("A6") == []


@pytest.mark.threat("A7")
def test_privileges_do_not_grow(holes: Callable[[str], list[str]]) -> None:
    assert holes("A7") == []


@pytest.mark.threat("A8")
def test_nothing_of_the_host_is_there(holes: Callable[[str], list[str]]) -> None:
    assert holes("A8") == []


@pytest.mark.threat("B4")
def test_the_wire_is_not_the_sandboxes_to_change(holes: Callable[[str], list[str]]) -> None:
    assert holes("B4") == []


@pytest.mark.threat("A3", "A6")
def test_the_host_is_as_it_was(everything: Mapping[str, list[Finding]]) -> None:
    assert everything["host"] == []


@pytest.mark.threat("A9")
def test_paths_that_a_sandbox_chose_are_followed_inside_only(inside: Inside, tmp_path: Path) -> None:
    if not isinstance(inside, InSandbox):
        pytest.skip("only Warren has files behind an API")
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    files = inside.sandbox.files
    inside.run(f"ln -sfn {secret} /tmp/to-file; ln -sfn {tmp_path} /tmp/to-folder; mkfifo -m 666 /tmp/fifo", "root")
    for path in ("/tmp/to-file", "/tmp/to-folder/secret", f"/../../../../../..{secret}", f"/proc/1/root{secret}"):
        with pytest.raises(SandboxException):
            files.read(path, user="root")
    assert files.read("/tmp/fifo", user="root", request_timeout=60) == ""  # nobody writes, and nobody waits
    inside.run(f"mkdir -p {tmp_path}", "root")
    files.write("/tmp/to-folder/new", "of the sandbox", user="root")
    files.write("/tmp/to-file", "of the sandbox", user="root")
    assert files.read(str(secret), user="root") == "of the sandbox"  # inside there is one now, by the same name
    assert secret.read_text() == "of the host"
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


@pytest.mark.threat("A10", runtime="runsc")
def test_gvisor_tells_of_its_own_machine(inside: Inside, runtime: str) -> None:
    if runtime != "runsc":
        pytest.skip("crun has the host's kernel")
    release, uptime, boot = inside.run(
        "uname -r; cut -d' ' -f1 /proc/uptime; cat /proc/sys/kernel/random/boot_id", "user"
    ).splitlines()
    assert release != os.uname().release
    assert float(uptime) < float(Path("/proc/uptime").read_text().split()[0])
    assert boot != Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@pytest.mark.threat("A5")
def test_entries_of_other_machines_are_closed(inside: Inside, runtime: str) -> None:
    said = inside.run(f"python3 {PLACE}.py", "user").splitlines()
    assert said[-1] == "tried"
    if runtime != "runsc":  # gVisor answers them itself, as far as it knows them
        assert said == ["tried"]
