"""Bringing a micro-container up: the engine starts it, the guest inside is told who it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import structlog

from warren.contracts.engine import Engine, Placement, Restore, SandboxSpec
from warren.contracts.guest import Door, Guest, GuestIdentity
from warren.control.memory_key import OWNER, memory_key
from warren.control.services import Services
from warren.control.templates import TemplateFiles
from warren.control.tokens import Tokens
from warren.model import limits
from warren.model.errors import CheckpointNotFound, CheckpointUnusable
from warren.model.policy import EgressPolicy
from warren.model.pool import Kind
from warren.model.snapshot import SnapshotKind
from warren.model.template import Template
from warren.model.volume import VolumeMount

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Owner:
    """What is an owner's own about a sandbox. The default is nobody's: no variables, and a door without a token.

    `envs` come on top of the template's; None keeps those that the guest has. `is_copy`: its files, and maybe its
    memory, are another sandbox's. `authority_id`: that sandbox, if the guest was restored from its memory and still
    believes its control token.
    """

    secured: bool = False
    envs: Mapping[str, str] | None = field(default_factory=dict[str, str])
    is_copy: bool = False
    authority_id: str | None = None
    recalls_envs: bool = False


@dataclass(frozen=True, slots=True)
class Launched:
    """`authority_id`: whose control token its guest believes, when memory was restored. `needs_services`: it has
    booted, and its template's start command has not run."""

    placement: Placement
    authority_id: str | None = None
    needs_services: bool = False


def start_deadline_s(*, restores: bool) -> float:
    """What took long to write takes long to read."""
    return limits.CHECKPOINT_DEADLINE_S if restores else limits.CREATE_DEADLINE_S


class Launcher:
    def __init__(
        self,
        *,
        engine: Engine,
        guest: Guest,
        tokens: Tokens,
        images: TemplateFiles,
        services: Services | None = None,
        memory: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`memory`: checkpoints of templates that came finished, by `memory_key`."""
        self._engine, self._guest, self._tokens, self._images = engine, guest, tokens, images
        self._services, self._memories = services, memory

    async def start_new(
        self,
        sandbox_id: str,
        template: Template,
        kind: Kind,
        egress: EgressPolicy,
        volumes: tuple[VolumeMount, ...] = (),
        *,
        in_background: bool = False,
    ) -> Launched:
        """A sandbox of a template, with its services up at once where the template has memory for this kind.

        With volumes it boots: what is restored has the mounts that it had.

        Raises what `Engine.create` raises.
        """
        memory = self._memory(template, kind, volumes)
        if memory is not None:
            try:
                placement = await self.start(
                    sandbox_id, template, kind, egress, restore=memory, in_background=in_background
                )
                return Launched(placement, authority_id=memory.checkpoint_id)
            except (CheckpointNotFound, CheckpointUnusable) as error:
                log.warning("template's memory not usable; booting", template=template.id, error=error.message)
        placement = await self.start(sandbox_id, template, kind, egress, volumes=volumes, in_background=in_background)
        return Launched(placement, needs_services=bool(template.start_command or template.ready_command))

    def restores(self, template: Template, kind: Kind, volumes: tuple[VolumeMount, ...]) -> bool:
        """Whether `start_new` reads memory back, if it can be read; else it boots."""
        return self._memory(template, kind, volumes) is not None

    def _memory(self, template: Template, kind: Kind, volumes: tuple[VolumeMount, ...]) -> Restore | None:
        """It was taken under the server's default runtime, at the template's own sizes."""
        if volumes:
            return None
        fits = kind.resources == template.resources and kind.runtime == self._engine.runtimes[0]
        key = memory_key(OWNER, self._engine.runtimes[0], template, template.resources)
        checkpoint_id = template.checkpoint_id or self._memories.get(key)
        if checkpoint_id is None or not fits or not self._engine.keeps_memory(kind.runtime):
            return None
        return Restore(checkpoint_id, SnapshotKind.MEMORY)

    async def greet(self, launched: Launched, template: Template, owner: Owner, deadline_s: float) -> None:
        """`introduce` for what `start_new` has started; then its services are up.

        Raises Timeout, Unavailable, and what `serve` raises.
        """
        if launched.authority_id is not None:
            owner = replace(owner, is_copy=True, authority_id=launched.authority_id)
        await self.introduce(launched.placement, template, owner, deadline_s)
        if launched.needs_services:
            await self.serve(launched.placement, template, secured=owner.secured)

    async def serve(self, placement: Placement, template: Template, *, secured: bool) -> None:
        """Have the template's services up in a sandbox that has booted. Raises ServicesNotReady, EngineFailed."""
        if self._services is None or not (template.start_command or template.ready_command):
            return
        access = self._tokens.access(placement.id) if secured else ""
        door = Door(placement.address, self._tokens.control(placement.id), access)
        await self._services.start(door, template, limits.SERVICES_DEADLINE_S)

    async def start(
        self,
        sandbox_id: str,
        template: Template,
        kind: Kind,
        egress: EgressPolicy,
        *,
        restore: Restore | None = None,
        volumes: tuple[VolumeMount, ...] = (),
        in_background: bool = False,
    ) -> Placement:
        """Raises what `Engine.create` raises."""
        return await self._engine.create(
            SandboxSpec(
                id=sandbox_id,
                runtime=kind.runtime,
                image=self._images.image(template),
                hostname=sandbox_id,
                resources=kind.resources,
                egress=egress,
                restore=restore,
                volumes=volumes,
                in_background=in_background,
            )
        )

    async def introduce(self, placement: Placement, template: Template, owner: Owner, deadline_s: float) -> None:
        """Tell the guest, once it listens, who it is; again for another owner. Raises Timeout, Unavailable."""
        identity = GuestIdentity(
            sandbox_id=placement.id,
            template_id=template.id,
            control_token=self._tokens.control(placement.id),
            access_token=self._tokens.access(placement.id) if owner.secured else None,
            hostname=placement.id,
            machine_id=self._tokens.machine_id(placement.id),
            default_user=template.default_user,
            default_workdir=template.default_workdir,
            envs=None if owner.envs is None else {**template.envs, **owner.envs},
            dns_servers=placement.dns_servers,
            authority=None if owner.authority_id is None else self._tokens.control(owner.authority_id),
            is_copy=owner.is_copy,
            recalls_envs=owner.recalls_envs,
        )
        await self._guest.init(placement.address, identity, deadline_s)
