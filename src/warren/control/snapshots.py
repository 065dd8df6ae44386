"""Snapshots: taking one of a running sandbox, naming its versions, starting from it, deleting it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from warren.contracts.clock import Clock, Ids
from warren.contracts.engine import Engine
from warren.contracts.store import SnapshotQuery, Store
from warren.control.checkpoints import Checkpoints
from warren.control.copying import Copying, check_runs
from warren.control.work import Work
from warren.model.errors import BadRequest
from warren.model.project import Project
from warren.model.sandbox import Sandbox
from warren.model.snapshot import DEFAULT_TAG, SNAPSHOT_ID, Snapshot, SnapshotKind, SnapshotUsage
from warren.model.template import template_of
from warren.telemetry.meters import Meters

log = structlog.get_logger(__name__)

_NAME = re.compile(r"(?:(?P<namespace>[a-z0-9_-]{1,64})/)?(?P<name>[a-z0-9_-]{1,128})(?::(?P<tag>[a-z0-9_.-]{1,128}))?")


@dataclass(frozen=True, slots=True)
class VersionName:
    name: str
    tag: str | None

    @classmethod
    def parse(cls, text: str, project: Project) -> "VersionName | None":
        """[namespace/]name[:tag] of this project's namespace; None for what is none of its names."""
        match = _NAME.fullmatch(text.lower())
        if match is None or match["namespace"] not in (None, project.name):
            return None
        return cls(match["name"], match["tag"])


class Snapshots:
    def __init__(
        self,
        *,
        engine: Engine,
        store: Store,
        clock: Clock,
        ids: Ids,
        checkpoints: Checkpoints,
        copying: Copying,
        work: Work,
        meters: Meters,
    ) -> None:
        self._engine, self._store, self._clock, self._ids = engine, store, clock, ids
        self._checkpoints, self._copying, self._work, self._meters = checkpoints, copying, work, meters

    async def take(self, project: Project, sandbox: Sandbox, name: str | None, *, memory: bool | None) -> Snapshot:
        """A snapshot of a running sandbox, which goes on. None keeps what its runtime can keep.

        Raises BadRequest for a name that cannot be used and for memory under a runtime that keeps none, SandboxPaused,
        SandboxChanging, LimitReached, NoSpace, Busy, EngineFailed. Goes on to its end when the caller goes away.
        """
        version = None if name is None else VersionName.parse(name, project)
        if name is not None and version is None:
            raise BadRequest(f"cannot use the name {name!r}: write [{project.name}/]name[:tag], of a-z 0-9 _ -")
        kind = snapshot_kind(sandbox, memory=memory, keeps_memory=self._engine.keeps_memory(sandbox.runtime))
        check_runs(sandbox)
        await self._checkpoints.check_room(project)
        return await self._work.finish(self._take(sandbox, version, kind), f"snapshot {sandbox.id}")

    async def _take(self, sandbox: Sandbox, version: VersionName | None, kind: SnapshotKind) -> Snapshot:
        with self._meters.sleeping("snapshot", sandbox.runtime), self._checkpoints.new() as checkpoint_id:
            checkpoint = await self._copying.copy(sandbox, checkpoint_id, kind)
            snapshot = Snapshot(
                id=self._ids.snapshot_id(),
                project_id=sandbox.project_id,
                checkpoint_id=checkpoint_id,
                kind=kind,
                source_id=sandbox.id,
                template_id=template_of(sandbox).root,
                digest=sandbox.digest,
                default_user=sandbox.default_user,
                default_workdir=sandbox.default_workdir,
                template_envs=sandbox.template_envs,
                volumes=sandbox.volumes,
                runtime=sandbox.runtime,
                resources=sandbox.resources,
                created_at=self._clock.now(),
                bytes=checkpoint.bytes,
                name=None if version is None else version.name,
                tag=DEFAULT_TAG if version is None else version.tag or DEFAULT_TAG,
            )
            await self._store.add_snapshot(snapshot)
        log.info("snapshot taken", sandbox=sandbox.id, snapshot=snapshot.id, kind=kind, bytes=snapshot.bytes)
        return snapshot

    async def find(self, project: Project, reference: str) -> Snapshot | None:
        """By id, `id:tag`, or version name; the tag is `default` where none is given."""
        bare, _, tag = reference.partition(":")
        if SNAPSHOT_ID.fullmatch(bare):
            found = await self._store.snapshot(project.id, bare)
            return found if found is not None and tag in ("", found.tag) else None
        version = VersionName.parse(reference, project)
        if version is None:
            return None
        return await self._store.named_snapshot(project.id, version.name, version.tag or DEFAULT_TAG)

    async def list(self, query: SnapshotQuery) -> Sequence[Snapshot]:
        return await self._store.snapshots(query)

    async def usage(self, project: Project) -> SnapshotUsage:
        """Disk that the project's paused sandboxes and snapshots take."""
        return await self._store.snapshot_usage(project.id)

    async def delete(self, project: Project, reference: str) -> bool:
        """False when there is none. What was started from it goes on."""
        snapshot = await self.find(project, reference)
        if snapshot is None or not await self._store.remove_snapshot(project.id, snapshot.id):
            return False
        await self._checkpoints.forget(snapshot.checkpoint_id)
        log.info("snapshot deleted", snapshot=snapshot.id)
        return True


def snapshot_kind(sandbox: Sandbox, *, memory: bool | None, keeps_memory: bool) -> SnapshotKind:
    """Files alone where the runtime keeps no memory and nobody insists. Raises BadRequest where somebody does."""
    if memory is False or (memory is None and not keeps_memory):
        return SnapshotKind.FILESYSTEM
    if not keeps_memory:
        raise BadRequest(f"cannot keep the memory of a sandbox under {sandbox.runtime}; ask with memory: false")
    return SnapshotKind.MEMORY
