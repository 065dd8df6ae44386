"""The environment of a sandbox, which its guest alone has: put among its files before what may boot from them."""

import structlog

from warren.contracts.guest import Guest
from warren.control.live import LiveSandboxes
from warren.control.standstills import Standstills
from warren.model.errors import WarrenError

log = structlog.get_logger(__name__)


class GuestEnvs:
    def __init__(self, *, guest: Guest, live: LiveSandboxes, standstills: Standstills) -> None:
        self._guest, self._live, self._standstills = guest, live, standstills

    async def retain(self, sandbox_id: str) -> bool:
        """Once it does not stand still; the guest takes it away when it starts. False when the guest is silent."""
        while True:
            await self._standstills.over(sandbox_id)
            route = self._live.find(sandbox_id)
            if route is None or not route.answers:
                return False
            try:
                await self._guest.retain_envs(route.address, route.control_token)
            except WarrenError as error:
                if sandbox_id in self._standstills:
                    continue  # that is why
                log.info("guest does not keep its environment", sandbox=sandbox_id, error=error.message)
                return False
            return True
