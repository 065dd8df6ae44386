"""Snapshots: the source goes on, any number start from one, names have versions, deleting is certain."""

from collections.abc import Callable
from secrets import token_hex

import pytest
from e2b import Sandbox, SandboxException

from tests.e2e.local_server import LocalServer
from tests.e2e.waiting import until

Create = Callable[..., Sandbox]
BOOT_ID = "/proc/sys/kernel/random/boot_id"
LONG_S = 40.0


def names_of(**query: str) -> list[str]:
    pages = Sandbox.list_snapshots(**query)
    found = []
    while pages.has_next:
        found += [snapshot.snapshot_id for snapshot in pages.next_items()]
    return found


def grows(sandbox: Sandbox, path: str) -> None:
    before = sandbox.files.get_info(path).size
    until(lambda: sandbox.files.get_info(path).size > before, LONG_S, f"{path} grows")


@pytest.mark.covers("S01", "S20")
def test_a_snapshot_starts_many_and_its_source_goes_on(server: LocalServer, create: Create, runtime: str) -> None:
    source = create(envs={"SECRET": "x"})
    counting = source.commands.run("while echo >> /tmp/counted; do sleep 0.02; done", background=True, timeout=0)
    source.files.write("/home/user/work", "as it was")
    follower = source.commands.run("for i in 1 2 3 4 5 6; do echo $i; sleep 0.5; done", background=True)
    snapshot = source.create_snapshot()
    source.files.write("/home/user/work", "changed")
    assert follower.wait().stdout.split() == ["1", "2", "3", "4", "5", "6"], "its open streams go on too"
    copies = [Sandbox.create(snapshot.snapshot_id, timeout=120, envs={"OWN": "y"}) for _ in range(2)]
    try:
        for copy in copies:
            assert copy.files.read("/home/user/work") == "as it was"
            assert copy.commands.run("echo [$SECRET] $OWN").stdout == "[] y\n"
            assert copy.commands.run("hostname").stdout.strip() == copy.sandbox_id
            went_on = counting.pid in {process.pid for process in copy.commands.list()}
            same_boot = copy.files.read(BOOT_ID) == source.files.read(BOOT_ID)
            assert (went_on, same_boot) == (runtime == "runsc",) * 2
            if went_on:
                grows(copy, "/tmp/counted")
        assert source.files.read("/home/user/work") == "changed"
        assert names_of(sandbox_id=source.sandbox_id) == [snapshot.snapshot_id]
        assert Sandbox.delete_snapshot(snapshot.snapshot_id) is True
        assert Sandbox.delete_snapshot(snapshot.snapshot_id) is False
        assert names_of(sandbox_id=source.sandbox_id) == []
        assert copies[0].files.read("/home/user/work") == "as it was"
        with pytest.raises(SandboxException, match="404"):
            Sandbox.create(snapshot.snapshot_id)
    finally:
        for copy in copies:
            copy.kill()


@pytest.mark.covers("S01", "S20")
def test_names_have_versions(server: LocalServer, create: Create) -> None:
    source, name = create(), f"snap-{token_hex(4)}"
    made = []
    try:
        for content, version in (("one", name), ("two", name), ("three", f"{name}:v3")):
            source.files.write("/home/user/work", content)
            made.append(source.create_snapshot(name=version))
        assert made[2].names == [f"default/{name}:v3"]
        assert len(names_of(name=name)) == 2
        for reference, content in ((name, "two"), (f"{name}:v3", "three"), (made[2].snapshot_id, "three")):
            with Sandbox.create(reference, timeout=60) as copy:
                assert copy.files.read("/home/user/work") == content
    finally:
        for snapshot in names_of(sandbox_id=source.sandbox_id):
            Sandbox.delete_snapshot(snapshot)
    assert names_of(name=name) == []


@pytest.mark.covers("S20")
def test_a_snapshot_of_files_alone_boots(server: LocalServer, create: Create) -> None:
    source = create()
    source.files.write("/home/user/work", "kept")
    boot_id = source.files.read("/proc/sys/kernel/random/boot_id")
    snapshot = source.create_snapshot(mode="filesystem")
    try:
        with Sandbox.create(snapshot.snapshot_id, timeout=60) as copy:
            assert copy.files.read("/home/user/work") == "kept"
            assert copy.files.read("/proc/sys/kernel/random/boot_id") != boot_id
    finally:
        Sandbox.delete_snapshot(snapshot.snapshot_id)
