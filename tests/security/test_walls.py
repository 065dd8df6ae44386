"""What root inside sees and may do: nothing of the host."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from tests.security.lab import Lab
from warren.engine.oci.uids import UID_BASE, UIDS_PER_SLOT

pytestmark = [pytest.mark.root, pytest.mark.anyio, pytest.mark.timeout(180)]

CAPABILITIES = 0xA00405FB
"""The twelve of bundle.CAPABILITIES, as a mask."""


@pytest.mark.threat("A1")
async def test_only_its_own_processes_are_there(box: Lab) -> None:
    seen = await asyncio.to_thread(box.run, "cat /proc/[0-9]*/comm | sort -u")
    assert set(seen.split()) <= {"guestd", "python3", "bash", "cat", "sort"}


@pytest.mark.threat("A7")
async def test_capabilities_are_the_named_ones(box: Lab) -> None:
    status = await asyncio.to_thread(box.run, "cat /proc/self/status")
    masks = {line.split()[0]: int(line.split()[1], 16) for line in status.splitlines() if line.startswith("Cap")}
    assert masks["CapInh:"] == masks["CapAmb:"] == 0
    assert masks["CapBnd:"] == masks["CapEff:"] == CAPABILITIES


@pytest.mark.parametrize(
    "command",
    [
        "mount -t tmpfs none /mnt",
        "mount -o remount,rw /.warren",
        "umount /proc",
        "mknod /tmp/disk b 254 0",
        "mknod /tmp/mem c 1 1",
        "mknod /tmp/tun c 10 200",
        "echo 0 > /.warren/guestd",
        "cp /bin/true /.warren/x",
        "echo core > /proc/sys/kernel/core_pattern",
        "echo /tmp/x > /proc/sys/kernel/modprobe",
        "echo b > /proc/sysrq-trigger",
        "ls /sys/fs/cgroup/memory/release_agent",
        "echo 1 > /sys/fs/cgroup/notify_on_release",
        "echo x > /sys/kernel/uevent_helper",
        "ls /proc/sys/fs/binfmt_misc/register",
        "test -s /proc/kcore && head -c 1 /proc/kcore | grep -q .",
        "test -e /dev/mem",
        "test -e /dev/kmsg",
        "test -e /dev/kvm",
        "test -e /dev/loop0",
        "test -e /dev/vda",
        "head -c 1 /dev/fuse",
        "ls /var/lib/warren /run/warren",
        "date -s 2001-01-01",
        "hostname other",
        "ip link set eth0 down",
        "ip addr add 198.18.0.9/32 dev eth0",
    ],
)
@pytest.mark.threat("A2", "A3", "A4")
async def test_is_refused(box: Lab, command: str) -> None:
    answer = await asyncio.to_thread(box.run, f"({command}) >/dev/null 2>&1 && echo done || echo refused")
    assert answer == "refused\n"


def ids_outside(record: Path) -> tuple[set[int], tuple[int, ...]]:
    """Host uids of a sandbox's first process, and the line that maps its ids: inside, outside, size."""
    process = Path("/proc", str(json.loads(record.read_text())["pid"]))
    lines = (process / "status").read_text().splitlines()
    uids = next(line for line in lines if line.startswith("Uid:")).split()[1:]
    return {int(uid) for uid in uids}, tuple(map(int, (process / "uid_map").read_text().split()))


@pytest.mark.threat("A7", runtime="crun")
async def test_files_of_root_inside_are_nobodys_outside(box: Lab, runtime: str) -> None:
    if runtime != "crun":
        pytest.skip("gVisor's processes on the host are its own")
    seen: set[int] = set()
    for placement in (box.one, box.two):
        uids, (inside, outside, size) = ids_outside(box.record(placement))
        assert uids == {outside}
        assert (inside, size) == (0, UIDS_PER_SLOT)
        assert outside >= UID_BASE
        seen.add(outside)
    assert len(seen) == 2


async def test_two_sandboxes_differ_in_boot_id(box: Lab) -> None:
    ids = {
        await asyncio.to_thread(box.run, "cat /proc/sys/kernel/random/boot_id", place) for place in (box.one, box.two)
    }
    assert len(ids) == 2
    assert Path("/proc/sys/kernel/random/boot_id").read_text() not in ids


async def test_free_and_df_tell_the_promised_sizes(box: Lab) -> None:
    answer = await asyncio.to_thread(box.run, "free -m | awk '/Mem/ {print $2}'; df -m / | awk 'NR==2 {print $2}'")
    assert answer.split() == ["256", "128"]


@pytest.mark.threat("C3")
async def test_a_full_disk_is_an_error_inside_and_no_more(box: Lab) -> None:
    script = "head -c 200M /dev/zero > /root/big; echo $?; rm /root/big; echo fine > /root/x && cat /root/x"
    answer = (await asyncio.to_thread(box.run, script)).splitlines()
    assert "No space left on device" in answer[0]
    assert answer[1:] == ["1", "fine"]


@pytest.mark.threat("C4")
async def test_every_memory_file_system_is_bounded(box: Lab) -> None:
    script = """for place in /dev /dev/shm /sys /proc /dev/mqueue; do
      { head -c 300M /dev/zero > $place/filler; stat -c %s $place/filler; rm -f $place/filler; } 2>/dev/null
    done; true"""
    sizes = [int(size) for size in (await asyncio.to_thread(box.run, script)).split()]
    assert sum(sizes) <= 65 * 1024 * 1024
    assert await asyncio.to_thread(box.run, "echo alive") == "alive\n"


BOMB = """
sudo -u user sh -c 'i=0; while [ $i -lt 400 ]; do sleep 300 >/dev/null 2>&1 & i=$((i+1)); done' 2>&1
pkill -u user sleep
"""


@pytest.mark.threat("C2")
async def test_a_fork_bomb_is_contained(box: Lab) -> None:
    assert "Cannot fork" in await asyncio.to_thread(box.run, BOMB)
    assert await asyncio.to_thread(box.run, "echo alive") == "alive\n"


@pytest.mark.threat("A6")
async def test_no_descriptor_of_the_host_is_open_inside(box: Lab) -> None:
    """CVE-2024-21626: a directory of the host that the runtime forgot to close."""
    links = await asyncio.to_thread(box.run, "readlink /proc/1/fd/* /proc/1/cwd /proc/1/root")
    allowed = ("/dev/null", "socket:", "pipe:", "anon_inode:", "/dev/pts", "host:", "/.warren/guestd")
    assert [link for link in links.split() if link != "/" and not link.startswith(allowed)] == []


@pytest.mark.threat("A8")
async def test_the_run_folder_tells_other_users_of_the_host_nothing(box: Lab) -> None:
    folder = Path("/run/warren", box.bridge)
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            assert os.stat(path).st_mode & 0o066 == 0, path


async def test_directories_of_the_template_can_be_renamed(box: Lab) -> None:
    script = 'python3 -c \'import os; os.rename("/usr/share/doc", "/usr/share/docs")\' && ls -d /usr/share/doc*'
    assert await asyncio.to_thread(box.run, script, box.two) == "/usr/share/docs\n"


async def test_low_ports_and_ping_work_inside(box: Lab) -> None:
    bind = "python3 -c 'import socket; socket.create_server((\"0.0.0.0\", 80))'"
    assert await asyncio.to_thread(box.run, f"{bind} && ping -c1 -W1 127.0.0.1 >/dev/null && echo ok") == "ok\n"
