"""Commands inside a sandbox, over the guest's own protocol and nothing else."""

import base64
import http.client
import json
import secrets

from warren.contracts.engine import GUEST_PORT
from warren.contracts.guest import GuestIdentity
from warren.guest.guestd import GuestdClient

BOOT_DEADLINE_S = 30.0
COMMAND_DEADLINE_S = 60.0
HEAD_BYTES = 5


async def introduce(address: str, hostname: str = "box") -> None:
    """Wait for a guest that has just booted, and leave it open."""
    identity = GuestIdentity(
        sandbox_id="inside", template_id="base", control_token="c" * 40, access_token=None, hostname=hostname,
        machine_id=secrets.token_hex(16), default_user="user", default_workdir="/home/user",
    )  # fmt: skip
    guest = GuestdClient()
    try:
        await guest.init(address, identity, BOOT_DEADLINE_S)
    finally:
        await guest.close()


def run(address: str, command: str) -> str:
    """What a shell command of root's says, without white space around it."""
    body = json.dumps({"process": {"cmd": "/bin/bash", "args": ["-c", command]}, "stdin": False}).encode()
    headers = {
        "Content-Type": "application/connect+json",
        "Connect-Protocol-Version": "1",
        "Authorization": "Basic " + base64.b64encode(b"root:").decode(),
    }
    connection = http.client.HTTPConnection(address, GUEST_PORT, timeout=COMMAND_DEADLINE_S)
    try:
        connection.request("POST", "/process.Process/Start", b"\0" + len(body).to_bytes(4, "big") + body, headers)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        said = b""
        while len(head := answer.read(HEAD_BYTES)) == HEAD_BYTES:
            event = json.loads(answer.read(int.from_bytes(head[1:], "big"))).get("event", {})
            data = event.get("data", {})
            said += base64.b64decode(data.get("stdout", "")) + base64.b64decode(data.get("stderr", ""))
        return said.decode().strip()
    finally:
        connection.close()
