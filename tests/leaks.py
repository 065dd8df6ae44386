"""What sandboxes may leave on a machine, listed before and after: the difference must be empty.

With a bridge only the traces of the server with that bridge count, so that several may be tested side by side;
without one, those of every server on the machine.
"""

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import create_engine

from warren.engine.oci.uids import FOLDER
from warren.store import sleep

_IMAGE_WORK = re.compile(r"-m warren\.(images\.cell|engine\.oci\.baker)\b")
_UNDER_WAY = (
    "templates/.*", "templates/*/*.erofs.*", "images/cell-*", "images/*.json.*", "engine/bakes/*",
    "engine/checkpoints/.*", "build-cache/.*", "uploads/*/.*",
)  # fmt: skip

Traces = Mapping[str, frozenset[str]]


def snapshot(bridge: str | None = None, state_dir: Path | None = None) -> Traces:
    """All traces of the server with this bridge (and state folder), or of all servers."""
    marks = [f"/run/warren/{bridge}/" if bridge else "/run/warren/", *([f"{state_dir}/"] if state_dir else [])]
    return {
        "run": _run(bridge),
        "links": frozenset(name for name in os.listdir("/sys/class/net") if _is_ours(name, bridge)),
        "tables": frozenset(line for line in _output("nft", "list", "tables") if f" warren_{bridge or ''}" in line),
        "cgroups": _cgroups(bridge),
        "mounts": _mounts(marks),
        "loops": _loops(marks),
        "processes": _processes(marks, [f"/warren_{bridge}{end}" for end in "/_"] if bridge else ["/warren_"]),
        "layers": _layers(state_dir),
        "partials": _partials(state_dir),
        "checkpoints": frozenset() if state_dir is None else _checkpoints(state_dir),
    }


def difference(before: Traces, after: Traces) -> dict[str, list[str]]:
    """What is there after and was not before; an empty dict when nothing was left."""
    return {kind: sorted(after[kind] - before[kind]) for kind in after if after[kind] - before[kind]}


def _is_ours(name: str, bridge: str | None) -> bool:
    return bridge is None or name == bridge or name.startswith(f"{bridge}.")


def _run(bridge: str | None) -> frozenset[str]:
    root = Path("/run/warren", bridge or "")
    claims = root.parent / FOLDER if bridge else root / FOLDER
    mine = {f"uids {path}" for path in claims.glob("*") if bridge is None or os.readlink(path).startswith(f"{bridge}/")}
    return frozenset(str(path) for path in root.rglob("*") if claims not in (path, path.parent)) | mine


def _output(*argv: str) -> list[str]:
    return subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False).stdout.splitlines()


def _cgroups(bridge: str | None) -> frozenset[str]:
    names = [f"warren_{bridge}", f"warren_{bridge}_*"] if bridge else ["warren_*"]
    found = [group for name in names for place in ("*/", "") for group in Path("/sys/fs/cgroup").glob(place + name)]
    return frozenset(str(group) for top in found for group in (top, *top.rglob("*")) if group.is_dir())


def _mounts(marks: list[str]) -> frozenset[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return frozenset(line.split()[4] for line in lines if any(mark in line for mark in marks))


def _loops(marks: list[str]) -> frozenset[str]:
    found: set[str] = set()
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            name = backing.read_text().strip()
        except OSError:
            continue
        if any(name.startswith(mark) for mark in marks):
            found.add(f"{backing.parts[3]} {name}")
    return frozenset(found)


def _processes(marks: list[str], group_marks: list[str]) -> frozenset[str]:
    found: set[str] = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            group = (entry / "cgroup").read_text()
        except OSError:
            continue
        is_runtime = Path(line.split(" ")[0]).name.startswith(("runsc", "crun")) and any(mark in line for mark in marks)
        is_in_group = any(mark in group for mark in group_marks)
        if is_in_group or is_runtime or (_IMAGE_WORK.search(line) and _has_open(entry, marks)):
            found.add(f"{entry.name} {line.strip()[:200]}")
    return frozenset(found)


def _has_open(process: Path, marks: list[str]) -> bool:
    """Whether a process works on a file of the server's, which may have lost its name by now."""
    try:
        targets = [os.readlink(descriptor) for descriptor in (process / "fd").iterdir()]
    except OSError:
        return False
    return any(target.startswith(mark) for target in targets for mark in marks)


def _partials(state_dir: Path | None) -> frozenset[str]:
    """What is under way while images are fetched, layers kept, archives taken in; and nothing at other times."""
    return frozenset(str(path) for pattern in _UNDER_WAY for path in (state_dir.glob(pattern) if state_dir else ()))


def _layers(state_dir: Path | None) -> frozenset[str]:
    folder = None if state_dir is None else state_dir / "engine" / "layers"
    return frozenset() if folder is None or not folder.exists() else frozenset(str(path) for path in folder.iterdir())


def _checkpoints(state_dir: Path) -> frozenset[str]:
    """Whole ones that nothing stands on: no sandbox sleeps in them, and no snapshot, template or build layer is made of
    them. Only what is in the server's own database counts; on another one nothing must be kept at the end."""
    whole = {path for path in (state_dir / "engine" / "checkpoints").glob("c*")}
    kept = kept_by_builds(state_dir)
    if whole and (state_dir / "warren.db").exists():
        database = create_engine(f"sqlite:///file:{state_dir / 'warren.db'}?mode=ro&uri=true")
        try:
            with database.connect() as connection:
                kept |= sleep.referenced_checkpoints(connection)
        finally:
            database.dispose()
    return frozenset(str(path) for path in whole if path.name not in kept)


def kept_by_builds(state_dir: Path) -> set[str]:
    """Checkpoints that builds have left for the next ones."""
    entries = [path for kind in ("files", "memory") for path in (state_dir / "build-cache").glob(f"*.{kind}")]
    return {json.loads(entry.read_text())["value"] for entry in entries}
