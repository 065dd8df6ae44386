"""All requirements, in the order of the table."""

from collections.abc import Callable

from warren.doctor import advisories, kernel, programs, room
from warren.doctor.finding import Finding
from warren.doctor.machine import Machine
from warren.settings import Settings

OF_MACHINE: tuple[Callable[[Machine], Finding], ...] = (
    kernel.kernel,
    kernel.root,
    kernel.cgroups,
    kernel.filesystems,
    kernel.idmapped_mounts,
    kernel.user_namespaces,
    kernel.seccomp,
    kernel.loop_devices,
    kernel.veth,
    kernel.nftables,
    kernel.forwarding,
    programs.tools,
    programs.local_names,
    room.memory,
    room.open_files,
)
OF_SETTINGS: tuple[Callable[[Machine, Settings], Finding], ...] = (
    programs.crun,
    programs.runsc,
    programs.guestd,
    programs.base_template,
    advisories.crun,
    advisories.runsc,
    advisories.runc,
    room.disk,
    room.ports,
)


def examine(machine: Machine, settings: Settings) -> list[Finding]:
    return [check(machine) for check in OF_MACHINE] + [check(machine, settings) for check in OF_SETTINGS]
