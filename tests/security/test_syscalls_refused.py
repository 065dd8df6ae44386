"""Under crun the kernel is the host's: each dangerous call is refused by name, to root inside as to anyone."""

import asyncio

import pytest

from tests.security.lab import Lab

pytestmark = [pytest.mark.root, pytest.mark.anyio, pytest.mark.timeout(180)]

CALLS = {
    "acct": 163, "add_key": 248, "adjtimex": 159, "bpf": 321, "clock_adjtime": 305, "clock_settime": 227,
    "delete_module": 176, "fanotify_init": 300, "finit_module": 313, "fsconfig": 431, "fsmount": 432, "fsopen": 430,
    "fspick": 433, "init_module": 175, "io_uring_enter": 426, "io_uring_register": 427, "io_uring_setup": 425,
    "ioperm": 173, "iopl": 172, "kexec_file_load": 320, "kexec_load": 246, "keyctl": 250, "mount": 165,
    "mount_setattr": 442, "move_mount": 429, "open_by_handle_at": 304, "open_tree": 428, "perf_event_open": 298,
    "pivot_root": 155, "quotactl": 179, "reboot": 169, "request_key": 249, "setdomainname": 171, "sethostname": 170,
    "setns": 308, "settimeofday": 164, "swapon": 167, "syslog": 103, "umount2": 166, "unshare": 272,
    "userfaultfd": 323, "vhangup": 153,
}  # fmt: skip
EPERM, ENOSYS = 1, 38

TRY = """
python3 - <<'END'
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    result = libc.syscall(*arguments)
    return ctypes.get_errno() if result == -1 else 0
for name, number in {calls!r}.items(): print(name, call(number, 0, 0, 0, 0, 0, 0))
END
"""


@pytest.fixture
def only_crun(runtime: str) -> None:
    if runtime != "crun":
        pytest.skip("gVisor answers system calls itself")


@pytest.mark.usefixtures("only_crun")
async def test_each_dangerous_call_is_refused(box: Lab) -> None:
    lines = (await asyncio.to_thread(box.run, TRY.format(calls=CALLS))).splitlines()
    answers = {name: int(number) for name, number in (line.split() for line in lines)}
    assert answers == dict.fromkeys(CALLS, EPERM)


@pytest.mark.usefixtures("only_crun")
async def test_new_namespaces_by_clone_are_refused(box: Lab) -> None:
    flags = {
        f"flag_{bit}": 56 for bit in ("10000000", "20000", "40000000", "20000000", "8000000", "4000000", "2000000")
    }
    body = TRY.format(calls=flags).replace(
        "call(number, 0, 0, 0, 0, 0, 0)", "call(number, int(name[5:], 16) | 17, 0, 0, 0, 0, 0)"
    )
    lines = (await asyncio.to_thread(box.run, body)).splitlines()
    assert {line.split()[0] for line in lines} == set(flags)
    assert {int(line.split()[1]) for line in lines} <= {EPERM, ENOSYS}


@pytest.mark.usefixtures("only_crun")
async def test_clone3_says_it_does_not_exist(box: Lab) -> None:
    assert await asyncio.to_thread(box.run, TRY.format(calls={"clone3": 435})) == f"clone3 {ENOSYS}\n"


@pytest.mark.usefixtures("only_crun")
async def test_unusual_socket_families_are_refused(box: Lab) -> None:
    script = """python3 -c '
import socket
for family in (38, 40, 17, 44, 21, 30, 4, 5):
    try: socket.socket(family, socket.SOCK_DGRAM); print("open", family)
    except OSError as error: pass
'"""
    assert await asyncio.to_thread(box.run, script) == ""
