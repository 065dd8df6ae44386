"""What the checks may ask a machine. `Machine` is the contract, `ThisMachine` asks the real one."""

import ctypes
import errno
import mmap
import os
import re
import resource
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Protocol

COMMAND_SECONDS = 10
"""Longest that a command of the doctor may take; all of them answer in milliseconds on a healthy machine."""


class Machine(Protocol):
    """Each question has an answer on every machine: None or False where there is nothing, never an error."""

    def release(self) -> str: ...
    def euid(self) -> int: ...
    def text(self, path: str) -> str | None: ...
    def exists(self, path: str) -> bool: ...
    def which(self, program: str) -> str | None: ...
    def output(self, *command: str) -> str | None: ...
    def has_module(self, module: str) -> bool: ...
    def go_module_version(self, binary: str, module: str) -> str | None: ...
    def knows_syscall(self, number: int) -> bool: ...
    def free_bytes(self, path: str) -> int: ...
    def open_files(self) -> int: ...
    def resolves(self, name: str) -> bool: ...
    def can_listen(self, host: str, port: int) -> bool: ...
    def templates(self, folder: str) -> tuple[str, ...]: ...


class ThisMachine:
    def release(self) -> str:
        return os.uname().release

    def euid(self) -> int:
        return os.geteuid()

    def text(self, path: str) -> str | None:
        try:
            return Path(path).read_text()
        except (OSError, UnicodeDecodeError):
            return None

    def exists(self, path: str) -> bool:
        return Path(path).exists()

    def which(self, program: str) -> str | None:
        return shutil.which(program)

    def output(self, *command: str) -> str | None:
        """What the command printed, or None when it is missing, slow or fails."""
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=True)
        except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
            return None
        return done.stdout

    def has_module(self, module: str) -> bool:
        """Built into this kernel, or a module that it loads when asked."""
        folder = Path("/lib/modules") / self.release()
        listed = (self.text(str(folder / name)) or "" for name in ("modules.builtin", "modules.dep"))
        return any(re.search(rf"/{module}\.ko", text) for text in listed)

    def go_module_version(self, binary: str, module: str) -> str | None:
        """The version that Go left in a program which it built from the module proxy."""
        try:
            with open(binary, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                found = re.search(rb"\t" + re.escape(module.encode()) + rb"\t(v[0-9][0-9A-Za-z.+-]*)", content)
                return found[1].decode() if found else None
        except (OSError, ValueError):
            return None

    def knows_syscall(self, number: int) -> bool:
        """All arguments are nonsense, so a kernel that has the call refuses them: nothing happens."""
        libc = ctypes.CDLL(None, use_errno=True)
        return libc.syscall(number, -1, 0, 0, 0, 0) != -1 or ctypes.get_errno() != errno.ENOSYS

    def free_bytes(self, path: str) -> int:
        folder = Path(path)
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def open_files(self) -> int:
        return resource.getrlimit(resource.RLIMIT_NOFILE)[1]

    def resolves(self, name: str) -> bool:
        try:
            return bool(socket.getaddrinfo(name, 80, family=socket.AF_INET))
        except OSError:
            return False

    def can_listen(self, host: str, port: int) -> bool:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((host, port))
            except OSError:
                return False
            return True

    def templates(self, folder: str) -> tuple[str, ...]:
        return tuple(sorted(path.parent.name for path in Path(folder).glob("*/template.json")))
