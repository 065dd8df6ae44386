"""What a project can do with its sandboxes."""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from warren.contracts.clock import Clock
from warren.contracts.engine import Engine
from warren.contracts.store import SandboxQuery, Store
from warren.control.elsewhere import Elsewhere
from warren.control.live import LiveSandboxes
from warren.control.sandbox_end import Ending
from warren.control.sandbox_start import Starting, StartRequest
from warren.control.supervision import Supervision
from warren.control.tokens import Tokens
from warren.model import limits
from warren.model.errors import (
    IdempotencyInFlight,
    IdempotencyMismatch,
    InvalidTimeout,
    SandboxChanging,
    SandboxNotFound,
)
from warren.model.health import Health
from warren.model.policy import NetworkPolicy
from warren.model.project import Project
from warren.model.sandbox import SANDBOX_ID, EndReason, Sandbox, State


@dataclass(frozen=True, slots=True)
class Admission:
    """A sandbox with what only its owner may know: its tokens, and whether its guest answers."""

    sandbox: Sandbox
    access_token: str | None
    traffic_token: str | None
    health: Health = Health.OK


class Sandboxes:
    """Every method raises SandboxNotFound for an id that does not exist or belongs to another project.

    A sandbox of another server is shown, ended and given time through the store; what needs its engine is refused.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        store: Store,
        clock: Clock,
        tokens: Tokens,
        elsewhere: Elsewhere,
        live: LiveSandboxes,
        starting: Starting,
        ending: Ending,
        supervision: Supervision,
    ) -> None:
        self._engine, self._store, self._clock, self._tokens = engine, store, clock, tokens
        self._elsewhere = elsewhere
        self._live, self._starting, self._ending, self._supervision = live, starting, ending, supervision

    async def create(self, project: Project, request: StartRequest) -> Admission:
        """Start a sandbox. Raises InvalidTimeout, and what `Starting.start` raises."""
        self._check_timeout(project, request.timeout_s, least=1)
        return self.admission(await self._starting.start(project, request))

    async def create_once(self, project: Project, request: StartRequest, key: str, body: bytes) -> Admission:
        """`create` under an idempotency key: a repeat finds the first sandbox, whatever became of it.

        Raises IdempotencyInFlight while the first request is at work, IdempotencyMismatch for another body.
        """
        digest = hashlib.sha256(body).hexdigest()
        record = await self._store.claim(project.id, key, digest, self._clock.now())
        if record is None:
            return await self._create_claimed(project, request, key)
        if record.body_digest != digest:
            raise IdempotencyMismatch
        if record.sandbox_id is None:
            raise IdempotencyInFlight
        first = await self._store.sandbox(project.id, record.sandbox_id)
        if first is None:
            raise SandboxNotFound.of(record.sandbox_id)
        await self._elsewhere.refuse(first)
        return self.admission(first)

    async def _create_claimed(self, project: Project, request: StartRequest, key: str) -> Admission:
        try:
            admission = await self.create(project, request)
        except BaseException:
            await self._store.settle(project.id, key, None)
            raise
        await self._store.settle(project.id, key, admission.sandbox.id)
        return admission

    async def get(self, project: Project, sandbox_id: str) -> Admission:
        return self.admission(await self._visible(project, sandbox_id))

    async def list(self, query: SandboxQuery) -> Sequence[Sandbox]:
        return await self._store.sandboxes(query)

    async def count_running(self, project: Project) -> int:
        return await self._store.count_running(project.id)

    async def kill(self, project: Project, sandbox_id: str) -> None:
        """Returns when nothing of it is left. Concurrent kills join; a later one finds nothing."""
        sandbox = await self._own(project, sandbox_id)
        if self._elsewhere.has(sandbox):
            await self._elsewhere.end(project, sandbox)
        elif not await self._ending.end(sandbox.id, EndReason.KILLED):
            raise SandboxNotFound.of(sandbox_id)

    async def connect(self, project: Project, sandbox_id: str, timeout_s: int) -> Admission:
        """Extend the deadline, never shorten it. Raises SandboxChanging while it is being killed, ServerAway."""
        await self._elsewhere.refuse(await self._own(project, sandbox_id))
        return self.admission(await self._extend(project, sandbox_id, timeout_s))

    async def refresh(self, project: Project, sandbox_id: str, duration_s: int) -> None:
        """Extend the deadline by older clients' keep-alive; never shortens."""
        await self._extend(project, sandbox_id, min(duration_s, limits.REFRESH_MAX_S))

    async def set_timeout(self, project: Project, sandbox_id: str, timeout_s: int) -> None:
        """Put the deadline `timeout_s` seconds from now, nearer or farther; 0 ends the sandbox now."""
        sandbox = await self._visible(project, sandbox_id)
        self._check_timeout(project, timeout_s, least=0)
        await self._move_deadline(sandbox, self._clock.now() + timedelta(seconds=timeout_s), only_extend=False)

    async def set_network(self, project: Project, sandbox_id: str, policy: NetworkPolicy) -> None:
        """Replace the egress part of the policy; what guards inbound traffic stays as created. Raises ServerAway."""
        sandbox = await self._visible(project, sandbox_id)
        await self._elsewhere.refuse(sandbox)
        kept = dataclasses.replace(
            policy, public_traffic=sandbox.network.public_traffic, mask_host=sandbox.network.mask_host
        )
        await self._engine.set_egress(sandbox.id, kept.egress())
        if not await self._store.set_network(sandbox.id, dataclasses.replace(sandbox, network=kept)):
            raise SandboxNotFound.of(sandbox_id)

    def admission(self, sandbox: Sandbox) -> Admission:
        if self._elsewhere.has(sandbox):
            return Admission(sandbox, None, None)  # its tokens come from the seed of another server
        route = self._live.find(sandbox.id)
        return Admission(
            sandbox=sandbox,
            access_token=self._tokens.access(sandbox.id) if sandbox.secured else None,
            traffic_token=None if sandbox.network.public_traffic else self._tokens.traffic(sandbox.id),
            health=Health.OK if route is None or route.answers else Health.UNRESPONSIVE,
        )

    async def _extend(self, project: Project, sandbox_id: str, timeout_s: int) -> Sandbox:
        sandbox = await self._own(project, sandbox_id)
        if sandbox.state is State.KILLING:
            raise SandboxChanging(f"cannot connect to sandbox {sandbox_id}: it is being killed")
        sandbox = await self._visible(project, sandbox_id)
        self._check_timeout(project, timeout_s, least=1)
        wanted = sandbox.extended_to(self._clock.now(), timeout_s)
        return await self._move_deadline(sandbox, wanted, only_extend=True)

    async def _move_deadline(self, sandbox: Sandbox, when: datetime, *, only_extend: bool) -> Sandbox:
        moved = await self._store.set_deadline(sandbox.id, when, only_extend)
        if moved is None:
            raise SandboxNotFound.of(sandbox.id)
        if not self._elsewhere.has(moved):
            self._supervision.set_deadline(moved.id, moved.expires_at)
        return moved

    def _check_timeout(self, project: Project, timeout_s: int, *, least: int) -> None:
        most = project.limits.lifetime_s
        if timeout_s < least:
            raise InvalidTimeout(f"cannot use timeout {timeout_s}: the least is {least} s")
        if timeout_s > most:
            raise InvalidTimeout(f"cannot use timeout {timeout_s}: the project's longest life (lifetime) is {most} s")

    async def _own(self, project: Project, sandbox_id: str) -> Sandbox:
        """The project's sandbox, unless it is gone. A legacy `-clientID` suffix is cut off (wire contract 6.3.2)."""
        bare, _, suffix = sandbox_id.partition("-")
        found = None
        if SANDBOX_ID.fullmatch(bare) and "-" not in suffix:
            found = await self._store.sandbox(project.id, bare)
        if found is None or found.state is State.GONE:
            raise SandboxNotFound.of(sandbox_id)
        return found

    async def _visible(self, project: Project, sandbox_id: str) -> Sandbox:
        sandbox = await self._own(project, sandbox_id)
        if not sandbox.state.is_visible:
            raise SandboxNotFound.of(sandbox_id)
        return sandbox
