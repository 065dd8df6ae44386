"""Who this server is, to the others that share its database: a file of the state folder, made at first start."""

import uuid
from dataclasses import dataclass
from pathlib import Path

from warren import durable

_FILE = "server-id"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Identity:
    """`id` lives as long as the state folder.

    settled: whether the last server with this id ran in this very folder since the machine's last boot. Otherwise the
    folder may be a copy, and the original at work.
    """

    id: str
    settled: bool


def load_identity(state_dir: Path) -> Identity:
    try:
        found, _, place = (state_dir / _FILE).read_text().strip().partition("\n")
    except FileNotFoundError:
        found, place = "", ""
    if not found:
        found, place = str(uuid.uuid4()), _place(state_dir)
        _write(state_dir, found, place)
    return Identity(found, settled=place == _place(state_dir))


def settle(state_dir: Path, identity: Identity) -> None:
    if not identity.settled:
        _write(state_dir, identity.id, _place(state_dir))


def _place(state_dir: Path) -> str:
    return f"{_BOOT_ID.read_text().strip()} {state_dir.resolve()}"


def _write(state_dir: Path, server_id: str, place: str) -> None:
    durable.write(state_dir / _FILE, f"{server_id}\n{place}\n")
