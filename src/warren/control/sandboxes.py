"""What a project can do with its sandboxes."""

import dataclasses
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from warren.contracts.clock import Clock
from warren.contracts.engine import Engine
from warren.contracts.store import IdempotencyKey, SandboxQuery, Store
from warren.control.activity import Activity
from warren.control.elsewhere import Elsewhere
from warren.control.forking import Forking, ForkRequest
from warren.control.live import LiveSandboxes
from warren.control.pausing import PauseRequest, Pausing
from warren.control.resuming import Resuming
from warren.control.sandbox_end import Ending
from warren.control.sandbox_start import Starting, StartRequest
from warren.control.snapshots import Snapshots
from warren.control.tokens import Tokens
from warren.control.watches import Watches
from warren.model import limits
from warren.model.errors import (
    Conflict,
    IdempotencyInFlight,
    IdempotencyMismatch,
    InvalidTimeout,
    SandboxChanging,
    SandboxNotFound,
    SandboxPaused,
    WarrenError,
)
from warren.model.health import Health
from warren.model.policy import NetworkPolicy
from warren.model.project import Project
from warren.model.room import Room
from warren.model.sandbox import SANDBOX_ID, EndReason, Sandbox, State
from warren.model.snapshot import Snapshot

Awake = Callable[[], Awaitable[Sandbox]]
Change = Callable[[Sandbox], Awaitable[Sandbox | None]]


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
        pausing: Pausing,
        resuming: Resuming,
        forking: Forking,
        snapshots: Snapshots,
        watches: Watches,
        activity: Activity,
    ) -> None:
        self._engine, self._store, self._clock, self._tokens = engine, store, clock, tokens
        self._elsewhere = elsewhere
        self._live, self._starting, self._ending, self._watches = live, starting, ending, watches
        self._pausing, self._resuming, self._forking, self._snapshots = pausing, resuming, forking, snapshots
        self._activity = activity

    async def room(self) -> Room:
        """What this machine has and what is promised of it, over all projects."""
        return await self._engine.room()

    async def create(self, project: Project, request: StartRequest) -> Admission:
        """Start a sandbox. Raises InvalidTimeout, and what `Starting.start` raises."""
        self._check_timeout(project, request.timeout_s, least=1)
        return self.admission(await self._starting.start(project, request))

    async def create_once(self, project: Project, request: StartRequest, key: str, body: bytes) -> Admission:
        """`create` under an idempotency key: a repeat finds the first sandbox, whatever became of it.

        Raises IdempotencyInFlight while the first request is at work, IdempotencyMismatch for another body.
        """
        digest = hashlib.sha256(body).hexdigest()
        holder = await self._store.key_holder(project.id, key, self._clock.now())
        if holder is None:
            return await self.create(project, dataclasses.replace(request, key=IdempotencyKey(key, digest)))
        if holder.body_digest != digest:
            raise IdempotencyMismatch
        first = await self._store.sandbox(project.id, holder.sandbox_id)
        if first is None:
            raise SandboxNotFound.of(holder.sandbox_id)
        if first.state is State.CREATING:
            raise IdempotencyInFlight
        await self._elsewhere.refuse(first)
        return self.admission(first)

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

    async def connect(
        self, project: Project, sandbox_id: str, timeout_s: int, *, memory: bool = True
    ) -> tuple[Admission, bool]:
        """Extend the deadline of a running sandbox, never shorten it; resume one that sleeps. Says whether it slept.

        Raises SandboxChanging while it is being killed, and ServerAway, and what `Resuming.resume` raises.
        """
        slept = False

        async def awake() -> Sandbox:
            nonlocal slept
            sandbox = await self._own(project, sandbox_id)
            await self._elsewhere.refuse(sandbox)
            if sandbox.state is State.KILLING:
                raise SandboxChanging(f"cannot connect to sandbox {sandbox_id}: it is being killed")
            if not sandbox.state.is_visible:
                raise SandboxNotFound.of(sandbox_id)
            if not sandbox.state.is_asleep:
                return sandbox
            self._check_timeout(project, timeout_s, least=1)
            slept = True
            return await self._resuming.resume(project, sandbox, timeout_s, memory=memory)

        return self.admission(await self._extended(project, sandbox_id, awake, timeout_s)), slept

    async def resume(self, project: Project, sandbox_id: str, timeout_s: int, *, memory: bool = True) -> Admission:
        """Older clients' way to wake a sandbox. Raises Conflict when it does not sleep."""
        sandbox = await self._visible(project, sandbox_id)
        if not sandbox.state.is_asleep:
            raise Conflict(f"cannot resume sandbox {sandbox_id}: it is running")
        return (await self.connect(project, sandbox_id, timeout_s, memory=memory))[0]

    async def pause(self, project: Project, sandbox_id: str, request: PauseRequest) -> None:
        """Returns when it sleeps. Raises ServerAway, and what `Pausing.pause` raises."""
        await self._pausing.pause(project, await self._here(project, sandbox_id), request)

    async def fork(self, project: Project, sandbox_id: str, request: ForkRequest) -> Sequence[Admission | WarrenError]:
        """Raises ServerAway, and what `Forking.fork` raises."""
        self._check_timeout(project, request.timeout_s, least=1)
        with self._activity.using(_bare(sandbox_id)):
            copies = await self._forking.fork(project, await self._here(project, sandbox_id), request)
        return [copy if isinstance(copy, WarrenError) else self.admission(copy) for copy in copies]

    async def snapshot(self, project: Project, sandbox_id: str, name: str | None, *, memory: bool | None) -> Snapshot:
        """Raises ServerAway, and what `Snapshots.take` raises."""
        with self._activity.using(_bare(sandbox_id)):
            return await self._snapshots.take(project, await self._here(project, sandbox_id), name, memory=memory)

    async def refresh(self, project: Project, sandbox_id: str, duration_s: int) -> None:
        """Extend the deadline by older clients' keep-alive; never shortens."""
        awake = partial(self._awake, project, sandbox_id)
        await self._extended(project, sandbox_id, awake, min(duration_s, limits.REFRESH_MAX_S))

    async def set_timeout(self, project: Project, sandbox_id: str, timeout_s: int) -> None:
        """Put the deadline `timeout_s` seconds from now, nearer or farther; 0 ends the sandbox now.

        Raises SandboxPaused: what sleeps has no deadline; SandboxChanging.
        """

        async def move(sandbox: Sandbox) -> Sandbox | None:
            self._check_timeout(project, timeout_s, least=0)
            when = self._clock.now() + timedelta(seconds=timeout_s)
            return await self._store.set_deadline(sandbox.id, when, only_extend=False)

        self._heed_deadline(await self._changed(sandbox_id, partial(self._awake, project, sandbox_id), move))

    async def set_network(self, project: Project, sandbox_id: str, policy: NetworkPolicy) -> None:
        """Replace the egress part of the policy; what guards inbound traffic stays as created.

        A paused sandbox sleeps on, and the rules are in force before it wakes. Raises SandboxChanging, ServerAway.
        """

        async def settled() -> Sandbox:
            sandbox = await self._here(project, sandbox_id)
            if sandbox.state.is_asleep and sandbox.state is not State.PAUSED:
                raise SandboxChanging(
                    f"cannot change the rules of sandbox {sandbox_id}: it falls asleep or wakes up; try again in a "
                    "moment"
                )
            return sandbox

        async def change(sandbox: Sandbox) -> Sandbox | None:
            kept = dataclasses.replace(
                policy, public_traffic=sandbox.network.public_traffic, mask_host=sandbox.network.mask_host
            )
            return await self._store.set_network(sandbox.id, dataclasses.replace(sandbox, network=kept))

        # The record first: it says at once whether the sandbox runs, for which the engine would wait behind a pause.
        changed = await self._changed(sandbox_id, settled, change)
        if changed.state is State.PAUSED:
            return
        try:
            await self._engine.set_egress(changed.id, changed.network.egress())
        except SandboxNotFound:  # dead; or put to sleep since, and then it wakes under what is recorded
            await self._visible(project, sandbox_id)

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

    async def _extended(self, project: Project, sandbox_id: str, awake: Awake, timeout_s: int) -> Sandbox:
        async def extend(sandbox: Sandbox) -> Sandbox | None:
            self._check_timeout(project, timeout_s, least=1)
            wanted = sandbox.extended_to(self._clock.now(), timeout_s)
            return await self._store.set_deadline(sandbox.id, wanted, only_extend=True)

        return self._heed_deadline(await self._changed(sandbox_id, awake, extend))

    async def _changed(self, sandbox_id: str, awake: Awake, change: Change) -> Sandbox:
        """`change` what `awake` finds fit for it; None says that it is not any more, and it is looked for again.

        Raises SandboxChanging for one that falls asleep again and again.
        """
        with self._activity.using(_bare(sandbox_id)):
            for _ in range(limits.CHANGE_TRIES):
                changed = await change(await awake())
                if changed is not None:
                    return changed
        raise SandboxChanging(f"cannot change sandbox {sandbox_id}: it falls asleep time and again; try again later")

    def _heed_deadline(self, moved: Sandbox) -> Sandbox:
        if not self._elsewhere.has(moved):
            self._watches.set_deadline(moved.id, moved.expires_at)
        return moved

    def _check_timeout(self, project: Project, timeout_s: int, *, least: int) -> None:
        most = project.limits.lifetime_s
        if timeout_s < least:
            raise InvalidTimeout(f"cannot use timeout {timeout_s}: the least is {least} s")
        if timeout_s > most:
            raise InvalidTimeout(f"cannot use timeout {timeout_s}: the project's longest life (lifetime) is {most} s")

    async def _own(self, project: Project, sandbox_id: str) -> Sandbox:
        """The project's sandbox, unless it is gone. A legacy `-clientID` suffix is cut off (wire contract 6.3.2)."""
        found = None
        if SANDBOX_ID.fullmatch(_bare(sandbox_id)) and sandbox_id.count("-") <= 1:
            found = await self._store.sandbox(project.id, _bare(sandbox_id))
        if found is None or found.state is State.GONE:
            raise SandboxNotFound.of(sandbox_id)
        return found

    async def _visible(self, project: Project, sandbox_id: str) -> Sandbox:
        sandbox = await self._own(project, sandbox_id)
        if not sandbox.state.is_visible:
            raise SandboxNotFound.of(sandbox_id)
        return sandbox

    async def _awake(self, project: Project, sandbox_id: str) -> Sandbox:
        sandbox = await self._roused(await self._visible(project, sandbox_id))
        if sandbox.state.is_asleep:
            raise SandboxPaused(f"cannot change sandbox {sandbox_id}: it is paused; connect to it first")
        return sandbox

    async def _here(self, project: Project, sandbox_id: str) -> Sandbox:
        sandbox = await self._visible(project, sandbox_id)
        await self._elsewhere.refuse(sandbox)
        return await self._roused(sandbox)

    async def _roused(self, sandbox: Sandbox) -> Sandbox:
        """Awake, if it sleeps only because nobody used it."""
        if sandbox.is_idle and not self._elsewhere.has(sandbox):
            return await self._resuming.wake_idle(sandbox)
        return sandbox


def _bare(sandbox_id: str) -> str:
    return sandbox_id.partition("-")[0]
