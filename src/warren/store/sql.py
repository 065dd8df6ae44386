"""The store on SQLite or Postgres. Each method is one transaction; the statements are in the module of their noun."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from warren.contracts.store import IdempotencyKey, KeyHolder, LogQuery, SandboxQuery, SecretQuery, SnapshotQuery
from warren.contracts.template_store import BuildQuery, LineQuery, TemplateQuery
from warren.model.build import Build, BuildLine, Built
from warren.model.idle import Ladder
from warren.model.observation import LogEntry, Metric
from warren.model.pause import Pause, PauseCause
from warren.model.project import ApiKey, Project, ProjectLimits
from warren.model.sandbox import EndReason, Sandbox, State
from warren.model.secret import SealedValue, Secret
from warren.model.server import Server
from warren.model.snapshot import DEFAULT_TAG, Snapshot, SnapshotUsage
from warren.model.template import Template, TemplateEntry, TemplateTag
from warren.model.volume import Volume
from warren.store import (
    builds,
    idempotency,
    migrate,
    observations,
    projects,
    sandboxes,
    secrets,
    servers,
    sleep,
    snapshots,
    templates,
    volumes,
)
from warren.store.database import Database


class SqlStore:
    def __init__(self, url: str) -> None:
        self._database = Database(url)

    async def open(self) -> None:
        if self._database.is_open:
            return
        await self._database.open()
        try:
            await self._database.write(migrate.upgrade)
        except BaseException:
            await self._database.close()
            raise

    async def close(self) -> None:
        await self._database.close()

    # --- projects and keys ---------------------------------------------------------------------------------

    async def add_project(self, project: Project) -> None:
        await self._database.write(projects.add, project)

    async def projects(self) -> Sequence[Project]:
        return await self._database.read(projects.everyone)

    async def project(self, project_id: str) -> Project | None:
        return await self._database.read(projects.find, project_id)

    async def set_limits(self, project_id: str, limits: ProjectLimits) -> bool:
        return await self._database.write(projects.set_limits, project_id, limits)

    async def add_key(self, key: ApiKey) -> None:
        await self._database.write(projects.add_key, key)

    async def keys(self, project_id: str) -> Sequence[ApiKey]:
        return await self._database.read(projects.keys, project_id)

    async def key_owner(self, digest: str) -> tuple[ApiKey, Project] | None:
        return await self._database.read(projects.key_owner, digest)

    async def rename_key(self, project_id: str, key_id: str, name: str) -> bool:
        return await self._database.write(projects.rename_key, project_id, key_id, name)

    async def revoke_key(self, project_id: str, key_id: str) -> bool:
        return await self._database.write(projects.revoke_key, project_id, key_id)

    async def touch_key(self, key_id: str, at: datetime) -> None:
        await self._database.note(projects.touch_key, key_id, at)

    # --- sandboxes -----------------------------------------------------------------------------------------

    async def add_sandbox(self, sandbox: Sandbox, quota: int, key: IdempotencyKey | None = None) -> bool:
        return await self._database.track(sandboxes.add, sandbox, quota, key)

    async def sandbox(self, project_id: str, sandbox_id: str) -> Sandbox | None:
        return await self._database.read(sandboxes.find, project_id, sandbox_id)

    async def sandboxes(self, query: SandboxQuery) -> Sequence[Sandbox]:
        return await self._database.read(sandboxes.page, query)

    async def count_running(self, project_id: str) -> int:
        return await self._database.read(sandboxes.count_running, project_id)

    async def live_sandboxes(self, server_id: str) -> Sequence[Sandbox]:
        return await self._database.read(sandboxes.live, server_id)

    async def overdue(self, server_id: str, now: datetime) -> Sequence[Sandbox]:
        return await self._database.read(sandboxes.overdue, server_id, now)

    async def wish_gone(self, sandbox_id: str) -> Sandbox | None:
        return await self._database.track(sandboxes.wish_gone, sandbox_id)

    async def move(self, sandbox_id: str, expected: frozenset[State], to: State) -> Sandbox | None:
        return await self._database.track(sandboxes.move, sandbox_id, expected, to)

    async def mark_running(self, sandbox_id: str, started_at: datetime, expires_at: datetime) -> Sandbox | None:
        return await self._database.track(sandboxes.mark_running, sandbox_id, started_at, expires_at)

    async def mark_killing(
        self, sandbox_id: str, reason: EndReason, due_by: datetime | None = None, *, if_paused: bool = False
    ) -> Sandbox | None:
        return await self._database.track(sandboxes.mark_killing, sandbox_id, reason, due_by, if_paused)

    async def mark_gone(self, sandbox_id: str, reason: EndReason, at: datetime) -> bool:
        return await self._database.track(sandboxes.mark_gone, sandbox_id, reason, at)

    async def set_deadline(self, sandbox_id: str, expires_at: datetime, only_extend: bool) -> Sandbox | None:
        return await self._database.track(sandboxes.set_deadline, sandbox_id, expires_at, only_extend)

    async def set_network(self, sandbox_id: str, sandbox: Sandbox) -> Sandbox | None:
        return await self._database.track(sandboxes.set_network, sandbox_id, sandbox)

    async def prune_gone(self, before: datetime) -> int:
        """In several transactions, so that other writers get their turn between the batches."""
        forgotten = 0
        while True:
            batch = await self._database.note(sandboxes.prune, before)
            forgotten += batch
            if batch < sandboxes.PRUNE_BATCH:
                return forgotten

    # --- sleep and snapshots -------------------------------------------------------------------------------

    async def claim_pause(self, sandbox_id: str, pause: Pause) -> Sandbox | None:
        return await self._database.track(sleep.claim_pause, sandbox_id, pause)

    async def mark_paused(self, sandbox_id: str, size: int) -> Sandbox | None:
        return await self._database.write(sleep.mark_paused, sandbox_id, size)

    async def claim_resume(self, project_id: str, sandbox_id: str, quota: int) -> Sandbox | None:
        return await self._database.track(sleep.claim_resume, project_id, sandbox_id, quota)

    async def mark_awake(self, sandbox_id: str, expires_at: datetime) -> Sandbox | None:
        return await self._database.track(sleep.mark_awake, sandbox_id, expires_at)

    async def keep_asleep(self, sandbox_id: str, by: PauseCause) -> Sandbox | None:
        return await self._database.track(sleep.keep_asleep, sandbox_id, by)

    async def sleeper(self, sandbox_id: str) -> Sandbox | None:
        return await self._database.read(sleep.sleeper, sandbox_id)

    async def referenced_checkpoints(self) -> frozenset[str]:
        return await self._database.read(sleep.referenced_checkpoints)

    async def snapshot_usage(self, project_id: str) -> SnapshotUsage:
        return await self._database.read(sleep.usage, project_id)

    async def add_snapshot(self, snapshot: Snapshot) -> None:
        await self._database.write(snapshots.add, snapshot)

    async def snapshot(self, project_id: str, snapshot_id: str) -> Snapshot | None:
        return await self._database.read(snapshots.find, project_id, snapshot_id)

    async def named_snapshot(self, project_id: str, name: str, tag: str) -> Snapshot | None:
        return await self._database.read(snapshots.find_named, project_id, name, tag)

    async def snapshots(self, query: SnapshotQuery) -> Sequence[Snapshot]:
        return await self._database.read(snapshots.page, query)

    async def remove_snapshot(self, project_id: str, snapshot_id: str) -> bool:
        return await self._database.write(snapshots.remove, project_id, snapshot_id)

    # --- secrets -------------------------------------------------------------------------------------------

    async def add_secret(self, secret: Secret, value: SealedValue, quota: int) -> bool:
        return await self._database.write(secrets.add, secret, value, quota)

    async def renew_secret(self, secret: Secret, value: SealedValue) -> bool:
        return await self._database.write(secrets.renew, secret, value)

    async def find_secret(self, project_id: str, reference: str) -> Secret | None:
        return await self._database.read(secrets.find, project_id, reference)

    async def secrets(self, query: SecretQuery) -> Sequence[Secret]:
        return await self._database.read(secrets.page, query)

    async def remove_secret(self, project_id: str, secret_id: str) -> bool:
        return await self._database.write(secrets.remove, project_id, secret_id)

    async def values_under_other_keys(self, key_id: str, after: tuple[str, int], limit: int) -> Sequence[SealedValue]:
        return await self._database.read(secrets.values_under_other_keys, key_id, after, limit)

    async def replace_value(self, old: SealedValue, new: SealedValue) -> None:
        await self._database.write(secrets.replace_value, old, new)

    # --- volumes -------------------------------------------------------------------------------------------

    async def add_volume(self, volume: Volume, quota: ProjectLimits) -> None:
        await self._database.write(volumes.add, volume, quota)

    async def mark_volume_ready(self, volume_id: str) -> None:
        await self._database.write(volumes.mark_ready, volume_id)

    async def volume(self, volume_id: str) -> Volume | None:
        return await self._database.read(volumes.find, volume_id)

    async def named_volume(self, project_id: str, name: str) -> Volume | None:
        return await self._database.read(volumes.find_named, project_id, name)

    async def volumes(self, project_id: str) -> Sequence[Volume]:
        return await self._database.read(volumes.of_project, project_id)

    async def claim_volume_removal(self, volume_id: str) -> Sequence[str]:
        return await self._database.write(volumes.claim_removal, volume_id)

    async def forget_volume(self, volume_id: str) -> None:
        await self._database.write(volumes.forget, volume_id)

    async def unfinished_volumes(self, server_id: str) -> Sequence[Volume]:
        return await self._database.read(volumes.unfinished, server_id)

    # --- servers -------------------------------------------------------------------------------------------

    async def register_server(self, server: Server) -> None:
        await self._database.write(servers.register, server)

    async def beat(self, server_id: str, at: datetime) -> None:
        await self._database.note(servers.beat, server_id, at)

    async def servers(self) -> Sequence[Server]:
        return await self._database.read(servers.everyone)

    async def home(self, sandbox_id: str) -> Server | None:
        return await self._database.read(servers.home, sandbox_id)

    async def give_up(self, server: Server, now: datetime) -> Sequence[Sandbox]:
        return await self._database.track(servers.give_up, server, now)

    # --- templates -----------------------------------------------------------------------------------------

    async def put_template(self, template: Template) -> None:
        await self._database.write(templates.put, template)

    async def find_template(self, project_id: str, name_or_id: str, tag: str = DEFAULT_TAG) -> Template | None:
        return await self._database.read(templates.find, project_id, name_or_id, tag)

    async def public_template(self, namespace: str, name: str, tag: str = DEFAULT_TAG) -> Template | None:
        return await self._database.read(templates.find_public, namespace, name, tag)

    async def templates(self, query: TemplateQuery) -> Sequence[TemplateEntry]:
        return await self._database.read(templates.page, query)

    async def template_entry(self, project_id: str, name_or_id: str) -> TemplateEntry | None:
        return await self._database.read(templates.find_entry, project_id, name_or_id)

    async def public_entry(self, namespace: str, name: str) -> TemplateEntry | None:
        return await self._database.read(templates.find_public_entry, namespace, name)

    async def set_public(self, template_id: str, public: bool, at: datetime) -> None:
        await self._database.write(templates.set_public, template_id, public, at)

    async def set_ladder(self, template_id: str, ladder: Ladder | None, at: datetime) -> None:
        await self._database.write(templates.set_ladder, template_id, ladder, at)

    async def ladders(self) -> Mapping[str, Ladder]:
        return await self._database.read(templates.ladders)

    async def remove_template(self, template_id: str) -> bool:
        return await self._database.write(templates.remove, template_id)

    async def template_tags(self, template_id: str) -> Sequence[TemplateTag]:
        return await self._database.read(templates.tags, template_id)

    async def assign_tags(self, template_id: str, source: str, tags: Sequence[str], at: datetime) -> str | None:
        return await self._database.write(templates.assign, template_id, source, tags, at)

    async def remove_tags(self, template_id: str, tags: Sequence[str]) -> bool:
        return await self._database.write(templates.untag, template_id, tags)

    async def referenced_images(self) -> frozenset[str]:
        return await self._database.read(templates.referenced_images)

    # --- builds --------------------------------------------------------------------------------------------

    async def request_build(self, project_id: str, name: str, build: Build) -> Build:
        return await self._database.write(builds.request, project_id, name, build)

    async def build(self, template_id: str, build_id: str) -> Build | None:
        return await self._database.read(builds.find, template_id, build_id)

    async def builds(self, query: BuildQuery) -> Sequence[Build]:
        return await self._database.read(builds.page, query)

    async def claim_build(self, template_id: str, build_id: str, at: datetime) -> Build | None:
        return await self._database.track(builds.claim, template_id, build_id, at)

    async def finish_build(self, template_id: str, build_id: str, built: Built, at: datetime) -> bool:
        return await self._database.write(builds.finish, template_id, build_id, built, at)

    async def fail_build(self, template_id: str, build_id: str, reason: str, step: str | None, at: datetime) -> bool:
        return await self._database.track(builds.fail, template_id, build_id, reason=reason, step=step, at=at)

    async def unfinished_builds(self, server_id: str) -> Sequence[Build]:
        return await self._database.read(builds.unfinished, server_id)

    async def add_build_lines(self, template_id: str, build_id: str, first: int, lines: Sequence[BuildLine]) -> bool:
        return await self._database.note(builds.add_lines, template_id, build_id, first, lines)

    async def build_lines(self, template_id: str, build_id: str, query: LineQuery) -> Sequence[BuildLine]:
        return await self._database.read(builds.lines, template_id, build_id, query)

    # --- observations --------------------------------------------------------------------------------------

    async def add_metrics(self, metrics: Sequence[Metric]) -> None:
        await self._database.note(observations.add_metrics, metrics)

    async def metrics(
        self, sandbox_id: str, start: datetime | None, end: datetime | None, limit: int
    ) -> Sequence[Metric]:
        return await self._database.read(observations.metrics, sandbox_id, start, end, limit)

    async def latest_metrics(self, project_id: str, sandbox_ids: Sequence[str]) -> Mapping[str, Metric]:
        return await self._database.read(observations.latest_metrics, project_id, sandbox_ids)

    async def add_logs(self, sandbox_id: str, entries: Sequence[LogEntry]) -> None:
        await self._database.note(observations.add_logs, sandbox_id, entries)

    async def logs(self, sandbox_id: str, query: LogQuery) -> Sequence[LogEntry]:
        return await self._database.read(observations.logs, sandbox_id, query)

    # --- idempotency ---------------------------------------------------------------------------------------

    async def key_holder(self, project_id: str, key: str, at: datetime) -> KeyHolder | None:
        return await self._database.read(idempotency.holder, project_id, key, at)
