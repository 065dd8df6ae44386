"""Bringing a micro-container up: the engine starts it, the guest inside is told who it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from warren.contracts.engine import Engine, Placement, Restore, SandboxSpec
from warren.contracts.guest import Guest, GuestIdentity
from warren.control.templates import TemplateFiles
from warren.control.tokens import Tokens
from warren.model.policy import EgressPolicy
from warren.model.pool import Kind
from warren.model.template import Template
from warren.model.volume import VolumeMount


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


class Launcher:
    def __init__(self, *, engine: Engine, guest: Guest, tokens: Tokens, images: TemplateFiles) -> None:
        self._engine, self._guest, self._tokens, self._images = engine, guest, tokens, images

    async def start(
        self,
        sandbox_id: str,
        template: Template,
        kind: Kind,
        egress: EgressPolicy,
        *,
        restore: Restore | None = None,
        volumes: tuple[VolumeMount, ...] = (),
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
