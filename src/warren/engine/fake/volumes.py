"""Volumes that exist only in memory (`warren.contracts.volumes.Volumes`). No links: nobody is inside."""

import posixpath
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from warren.model import limits
from warren.model.errors import AlreadyExists, BadRequest, NoSpace, PathNotFound, VolumeInUse, VolumeNotFound
from warren.model.volume import Attributes, EntryType, VolumeEntry

MIB = 1024 * 1024
OWNER = 1000
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Node:
    entry: VolumeEntry
    content: bytes = b""


def _node(path: str, kind: EntryType, attributes: Attributes, content: bytes = b"") -> Node:
    uid, gid, mode = attributes.uid or 0, attributes.gid or 0, attributes.mode or 0
    return Node(VolumeEntry(path, kind, len(content), mode, uid, gid, EPOCH, EPOCH, EPOCH), content)


@dataclass
class FakeVolume:
    size: int
    nodes: dict[str, Node] = field(default_factory=dict[str, Node])

    def __post_init__(self) -> None:
        self.nodes["/"] = _node("/", EntryType.DIRECTORY, Attributes(OWNER, OWNER, 0o777))

    def find(self, path: str) -> Node:
        for above in _above(path):
            if above in self.nodes and self.nodes[above].entry.type is not EntryType.DIRECTORY:
                raise BadRequest(f"cannot use {path!r}: a part of it is no directory")
        if path not in self.nodes:
            raise PathNotFound(f"cannot find {path!r} in the volume")
        return self.nodes[path]

    def parent(self, path: str, *, force: bool) -> VolumeEntry:
        above = posixpath.dirname(path)
        try:
            found = self.find(above).entry
        except PathNotFound:
            if not force:
                raise
            own = self.parent(above, force=True)
            found = self.put(above, EntryType.DIRECTORY, Attributes(own.uid, own.gid, 0o755)).entry
        if found.type is not EntryType.DIRECTORY:
            raise BadRequest(f"cannot use {path!r}: a part of it is no directory")
        return found

    def put(self, path: str, kind: EntryType, attributes: Attributes, content: bytes = b"") -> Node:
        self.nodes[path] = _node(path, kind, attributes, content)
        return self.nodes[path]


class FakeVolumes:
    """`volumes_of` gives the volumes of every sandbox that runs."""

    def __init__(self, disk: dict[str, FakeVolume], volumes_of: Callable[[], Sequence[str]]) -> None:
        self._disk, self._volumes_of = disk, volumes_of

    async def make(self, volume_id: str, size_mb: int) -> None:
        if volume_id in self._disk:
            raise AlreadyExists(f"cannot make volume {volume_id}: that id is in use")
        self._disk[volume_id] = FakeVolume(size_mb * MIB)

    async def remove(self, volume_id: str) -> None:
        if volume_id in self._volumes_of():
            raise VolumeInUse(f"cannot delete volume {volume_id}: it is in use")
        self._disk.pop(volume_id, None)

    async def volumes(self) -> Sequence[str]:
        return list(self._disk)

    async def stat(self, volume_id: str, path: str) -> VolumeEntry:
        return self.of(volume_id).find(path).entry

    async def list(self, volume_id: str, path: str, depth: int) -> Sequence[VolumeEntry]:
        volume = self.of(volume_id)
        if volume.find(path).entry.type is not EntryType.DIRECTORY:
            raise BadRequest(f"cannot list {path!r}: it is no directory")
        found = [node.entry for inner, node in sorted(volume.nodes.items()) if 0 < _levels(path, inner) <= depth]
        if len(found) > limits.VOLUME_ENTRIES_MAX:
            raise BadRequest(f"cannot list more than {limits.VOLUME_ENTRIES_MAX} entries")
        return found

    async def make_dir(self, volume_id: str, path: str, attributes: Attributes, *, force: bool) -> VolumeEntry:
        volume = self.of(volume_id)
        if path in volume.nodes:
            if not force or volume.nodes[path].entry.type is not EntryType.DIRECTORY:
                raise AlreadyExists(f"cannot make {path!r}: it exists")
            return volume.nodes[path].entry
        own = volume.parent(path, force=force)
        return volume.put(path, EntryType.DIRECTORY, attributes.over(Attributes(own.uid, own.gid, 0o755))).entry

    async def change(self, volume_id: str, path: str, attributes: Attributes) -> VolumeEntry:
        node = self.of(volume_id).find(path)
        new = attributes.over(Attributes(node.entry.uid, node.entry.gid, node.entry.mode))
        node.entry = replace(node.entry, uid=new.uid or 0, gid=new.gid or 0, mode=new.mode or 0)
        return node.entry

    async def delete(self, volume_id: str, path: str) -> None:
        volume = self.of(volume_id)
        if path == "/":
            raise BadRequest("cannot delete '/': delete what is in it, or the volume")
        volume.find(path)
        for inner in [inner for inner in volume.nodes if inner == path or inner.startswith(f"{path}/")]:
            del volume.nodes[inner]

    async def read(self, volume_id: str, path: str) -> AsyncGenerator[bytes]:
        node = self.of(volume_id).find(path)
        if node.entry.type is not EntryType.FILE:
            raise BadRequest(f"cannot read {path!r}: it is no file")
        yield b""
        for start in range(0, len(node.content), limits.VOLUME_CHUNK_BYTES):
            yield node.content[start : start + limits.VOLUME_CHUNK_BYTES]

    async def write(
        self, volume_id: str, path: str, content: AsyncIterable[bytes], attributes: Attributes, *, force: bool
    ) -> VolumeEntry:
        volume = self.of(volume_id)
        if not force:
            volume.parent(path, force=False)
        if path in volume.nodes and volume.nodes[path].entry.type is EntryType.DIRECTORY:
            raise BadRequest(f"cannot use {path!r}: it is a directory")
        whole = b"".join([chunk async for chunk in content])
        if sum(len(node.content) for node in volume.nodes.values()) + len(whole) > volume.size:
            raise NoSpace(f"cannot write {path!r}: the volume is full")
        own = volume.parent(path, force=force)
        before = volume.nodes.get(path)
        known = Attributes(own.uid, own.gid, 0o644)
        if before is not None:
            known = Attributes(before.entry.uid, before.entry.gid, before.entry.mode)
        return volume.put(path, EntryType.FILE, attributes.over(known), whole).entry

    def of(self, volume_id: str) -> FakeVolume:
        if volume_id not in self._disk:
            raise VolumeNotFound(f"cannot find volume {volume_id!r}")
        return self._disk[volume_id]


def _above(path: str) -> list[str]:
    found: list[str] = []
    while path != "/":
        path = posixpath.dirname(path)
        found.append(path)
    return found


def _levels(path: str, inner: str) -> int:
    """How deep `inner` is below `path`; 0 when it is not."""
    above = _above(inner)
    return above.index(path) + 1 if path in above else 0
