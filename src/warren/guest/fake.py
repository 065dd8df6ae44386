"""A guest in memory: the reference for tests of everything above it."""

import asyncio

from warren.contracts.guest import GuestIdentity, GuestLogs
from warren.model.errors import Timeout
from warren.model.observation import LogEntry


class FakeGuest:
    """Remembers who it was told to be; answers unless told to be silent, always, or once, and once it is `up`."""

    def __init__(self) -> None:
        self.retained: list[str] = []
        self.identities: dict[str, GuestIdentity] = {}
        self.entries: dict[str, list[LogEntry]] = {}
        self.freed: list[tuple[int, int]] = []
        self.silent = False
        self.deaf_once: set[str] = set()
        self.up = asyncio.Event()
        self.up.set()

    async def init(self, address: str, identity: GuestIdentity, deadline_s: float) -> None:
        await self.up.wait()
        is_deaf = identity.sandbox_id in self.deaf_once
        self.deaf_once.discard(identity.sandbox_id)
        if self.silent or is_deaf:
            raise Timeout(f"cannot reach the guest at {address} within {deadline_s:g} s")
        self.identities[identity.sandbox_id] = identity

    async def retain_envs(self, address: str, control_token: str) -> None:
        if self.silent:
            raise Timeout(f"cannot get an answer from the guest at {address}")
        self.retained.append(control_token)

    async def logs(self, address: str, control_token: str, after: int) -> GuestLogs:
        if self.silent:
            raise Timeout(f"cannot get an answer from the guest at {address}")
        entries = self.entries.get(address, [])
        return GuestLogs(tuple(entries[after:]), len(entries))

    async def check(self, address: str) -> None:
        if self.silent:
            raise Timeout(f"cannot get an answer from the guest at {address}")

    async def free(self, address: str, control_token: str, need: int, attempt: int) -> bool:
        if self.silent:
            raise Timeout(f"cannot get an answer from the guest at {address}")
        self.freed.append((need, attempt))
        return True

    async def close(self) -> None:
        return None
