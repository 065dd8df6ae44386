"""What the sandbox's guest daemon says: the environment, and whether a token is the sandbox's."""

import json
import logging
from typing import Any, cast

import aiohttp

from code_interpreter import limits

log = logging.getLogger(__name__)

GUEST = "http://127.0.0.1:49983"


class AccessDenied(Exception):
    """the access token is not the sandbox's"""


class Sandbox:
    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def envs(self, token: str | None) -> dict[str, str]:
        """The sandbox's environment variables, for whoever has its token. Raises AccessDenied."""
        headers = {"X-Access-Token": token} if token else {}
        deadline = aiohttp.ClientTimeout(total=limits.ENVS_DEADLINE_S)
        try:
            async with self._session.get(f"{GUEST}/envs", headers=headers, timeout=deadline) as answer:
                if answer.status in (401, 403):
                    raise AccessDenied("cannot execute: the access token (X-Access-Token) is missing or wrong")
                answer.raise_for_status()
                content = await answer.content.read(limits.ENVS_MAX)
                found: Any = json.loads(content)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            log.warning("cannot learn the sandbox's environment: %r", error)
            return {}
        pairs = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
        return {name: value for name, value in pairs.items() if isinstance(value, str)}
