"""A FUSE file system of one empty folder: what a network mount looks like to guestd.

Run inside the mount namespace of a daemon: python fuse.py FOLDER. It mounts over the folder, prints
"mounted", and serves until its standard input ends. Layouts: include/uapi/linux/fuse.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
import sys

LOOKUP, FORGET, GETATTR, STATFS, INIT, OPENDIR, READDIR, ACCESS, RELEASEDIR = 1, 2, 3, 17, 26, 27, 28, 34, 29
HEADER = struct.Struct("<IIQQIIII")  # len, opcode, unique, nodeid, uid, gid, pid, padding
ANSWER = struct.Struct("<IiQ")  # len, error, unique
READ_BYTES = 1 << 17
S_IFDIR = 0o040000
DETACH = 2


def attributes() -> bytes:
    times = struct.pack("<QQQIII", 0, 0, 0, 0, 0, 0)
    body = struct.pack("<QQQ", 1, 0, 0) + times
    return body + struct.pack("<IIIIIII", S_IFDIR | 0o755, 2, 0, 0, 0, 4096, 0)


def answer(opcode: int) -> tuple[int, bytes]:
    match opcode:
        case 26:  # INIT: protocol 7.23 and no features
            return 0, struct.pack("<IIIIHHII", 7, 23, 65536, 0, 16, 12, 65536, 1) + bytes(36)
        case 3:  # GETATTR, valid for no time at all
            return 0, struct.pack("<QII", 0, 0, 0) + attributes()
        case 17:  # STATFS
            return 0, struct.pack("<QQQQQIIII", 0, 0, 0, 0, 0, 4096, 255, 4096, 0) + bytes(24)
        case 27:  # OPENDIR
            return 0, struct.pack("<QII", 0, 0, 0)
        case 1:  # LOOKUP: the folder is empty
            return -errno.ENOENT, b""
        case _ if opcode in (READDIR, ACCESS, RELEASEDIR):
            return 0, b""
        case _:
            return -errno.ENOSYS, b""


def serve(folder: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode={S_IFDIR:o},user_id=0,group_id=0,allow_other".encode()
    if libc.mount(b"network", folder.encode(), b"fuse", 0, options) != 0:
        raise OSError(ctypes.get_errno(), "cannot mount")
    print("mounted", flush=True)
    try:
        while True:
            ready, _, _ = select.select([device, sys.stdin], [], [])
            if sys.stdin in ready:
                return
            _, opcode, unique, *_ = HEADER.unpack_from(os.read(device, READ_BYTES))
            if opcode != FORGET:
                code, body = answer(opcode)
                os.write(device, ANSWER.pack(ANSWER.size + len(body), code, unique) + body)
    finally:
        libc.umount2(folder.encode(), DETACH)


if __name__ == "__main__":
    serve(sys.argv[1])
