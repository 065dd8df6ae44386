"""Tokens of a sandbox, and signatures of links: derived from one seed, so that they survive a restart unstored.

HMAC-SHA256 (RFC 2104) over a purpose and the sandbox id; the wire contract (6.1.5) does the same. The seed is a
file of the state folder, mode 0600. Losing it invalidates every token; guests keep theirs until they end.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path

from warren import durable

_SEED_BYTES = 32


@dataclass(frozen=True, slots=True)
class Tokens:
    seed: bytes

    def access(self, sandbox_id: str) -> str:
        """For the guest's own port."""
        return self._derive("access", sandbox_id)

    def traffic(self, sandbox_id: str) -> str:
        """For user ports when public traffic is off."""
        return self._derive("traffic", sandbox_id)

    def control(self, sandbox_id: str) -> str:
        """For the guest's control routes; never leaves the server and the guest."""
        return self._derive("control", sandbox_id)

    def upload(self, link: str) -> str:
        """What signs a link for an upload."""
        return self._derive("upload", link)

    def volume(self, volume_id: str) -> str:
        """For the files of a volume, as long as it lives."""
        return self._derive("volume", volume_id)

    def machine_id(self, sandbox_id: str) -> str:
        """32 hex digits for /etc/machine-id."""
        return self._derive("machine", sandbox_id)[:32]

    def _derive(self, purpose: str, of: str) -> str:
        return hmac.new(self.seed, f"{purpose}:{of}".encode(), hashlib.sha256).hexdigest()


def load_seed(path: Path) -> bytes:
    """Read the seed, or make it on first use. Two servers starting at once agree on the same one."""
    return path.read_bytes() if path.exists() else durable.write_once(path, secrets.token_bytes(_SEED_BYTES))
