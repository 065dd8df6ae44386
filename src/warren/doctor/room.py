"""Room to work in: disk, memory, open files, ports. Pure questions about a Machine."""

import re

from warren.doctor.finding import Finding, Weight
from warren.doctor.machine import Machine
from warren.settings import Settings

GIB = 1 << 30
LEAST_DISK = 5 * GIB
"""The base template, a sandbox's default disk and some air."""
LEAST_MEMORY = 2 * GIB
"""One default sandbox (1 GiB), the server and the system."""
LEAST_OPEN_FILES = 4096
"""About ten per sandbox and two per connection through the gateway."""


def disk(machine: Machine, settings: Settings) -> Finding:
    free = machine.free_bytes(str(settings.state_dir))
    return Finding(
        name="disk",
        found=f"{free / GIB:.1f} GiB free in {settings.state_dir}",
        ok=free >= LEAST_DISK,
        why="each sandbox may fill a layer of its own, 2 GiB by default",
        remedy=f"make {LEAST_DISK // GIB} GiB free, or set WARREN_STATE_DIR to a larger disk",
        weight=Weight.ADVISED,
    )


def memory(machine: Machine) -> Finding:
    total = re.search(r"MemTotal:\s+(\d+) kB", machine.text("/proc/meminfo") or "")
    size = int(total[1]) * 1024 if total else 0
    return Finding(
        name="memory",
        found=f"{size / GIB:.1f} GiB" if total else None,
        ok=size >= LEAST_MEMORY,
        why="a sandbox may use 1 GiB by default; an idle one takes about 20 MiB under gVisor",
        remedy="use a machine with 2 GiB or more, or create sandboxes with a smaller memoryMB",
        weight=Weight.ADVISED,
    )


def open_files(machine: Machine) -> Finding:
    limit = machine.open_files()
    return Finding(
        name="open files",
        found=f"up to {limit}",
        ok=limit >= LEAST_OPEN_FILES,
        why="each connection through the gateway takes two",
        remedy=f"raise the limit: ulimit -n {LEAST_OPEN_FILES}",
        weight=Weight.ADVISED,
    )


def ports(machine: Machine, settings: Settings) -> Finding:
    wanted = {"WARREN_API_PORT": settings.api_port, "WARREN_GATEWAY_PORT": settings.gateway_port}
    wanted["WARREN_TLS_PORT"] = settings.tls_port
    taken = {name: port for name, port in wanted.items() if not machine.can_listen(settings.host, port)}
    return Finding(
        name="ports",
        found=", ".join(f"{port} {'in use' if name in taken else 'free'}" for name, port in wanted.items()),
        ok=not taken,
        why="API, gateway, and gateway with TLS",
        remedy=f"fine when that is Warren itself; else stop the other program, or set {', '.join(taken or wanted)}",
        weight=Weight.ADVISED,
    )
