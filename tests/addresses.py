"""Address blocks for the servers and engines of tests: no two alive on this machine share one, whoever started them.

Two bridges with the same addresses answer for each other's sandboxes, and a test then talks to a stranger.
"""

import fcntl
import os
import random
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

SPACE = IPv4Network("198.19.0.0/16")
"""Half of the block for benchmarks (RFC 2544); a server with default settings has the other half."""
UNIT = 24
KEPT_FREE = IPv4Network("198.19.255.0/24")
"""For who wants addresses that nobody has."""
CLAIMS = Path("/run/lock/warren-tests")
ROUTES = Path("/proc/net/route")

_held: list[int] = []
_carved: dict[int, Iterator[IPv4Network]] = {}


def block(prefix: int = UNIT) -> IPv4Network:
    """A network of this length (24 to 30) that is this process's own until it ends."""
    found = next(_carved.get(prefix, iter(())), None)
    if found is None:
        _carved[prefix] = _claimed().subnets(new_prefix=prefix)
        found = next(_carved[prefix])
    return found


def claim(name: str) -> bool:
    """Whether this process is, until it ends, the only one of the machine that has what goes by this name."""
    CLAIMS.mkdir(exist_ok=True)
    held = os.open(CLAIMS / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        return False
    _held.append(held)
    return True


def _claimed() -> IPv4Network:
    units = [unit for unit in SPACE.subnets(new_prefix=UNIT) if unit != KEPT_FREE]
    random.shuffle(units)
    for unit in units:
        if any(unit.overlaps(route) for route in _routes()):  # of a server that outlived its test
            continue
        if claim(str(unit.network_address)):
            return unit
    raise AssertionError(f"no block of {SPACE} is free; which servers of tests still run?")


def _routes() -> list[IPv4Network]:
    """Networks that this machine reaches directly; the default route is none."""
    rows = [line.split() for line in ROUTES.read_text().splitlines()[1:]]
    return [IPv4Network((_address(row[1]), str(_address(row[7])))) for row in rows if row[1] != "00000000"]


def _address(text: str) -> IPv4Address:
    return IPv4Address(int.from_bytes(bytes.fromhex(text), "little"))
