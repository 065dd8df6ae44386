"""A Warren server of the test's own: a real `warren serve` with its own state, ports, bridge and addresses."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self
from urllib.error import URLError
from urllib.request import urlopen

from tests import addresses
from warren.engine.oci.process import ProcessId, kill

START_DEADLINE_S = 60.0
"""Seconds from exec to the first /health answer; on a busy two-core machine the first start makes certificates."""
STOP_DEADLINE_S = 60.0
"""Seconds for a terminated server to be gone."""
POLL_S = 0.05
SPARES = int(os.environ.get("WARREN_TEST_POOL", "0"))
"""Of each runtime, where a test says nothing of the pool."""


class LocalServer:
    """`start` and `stop` may be called in turn any number of times: the state stays between them."""

    def __init__(self, folder: Path, *, command: Path | None = None, **settings: str | int) -> None:
        """`command`: the `warren` of another checkout; the one of these tests by default."""
        self.folder = folder
        self.command = command or warren_command()
        self.state = folder / "state"
        self.log = folder / "server.log"
        self.api_port, self.gateway_port, self.tls_port = free_ports(3)
        tag = secrets.token_hex(2)
        self.settings: dict[str, str] = {
            "WARREN_STATE_DIR": str(self.state),
            "WARREN_API_PORT": str(self.api_port),
            "WARREN_GATEWAY_PORT": str(self.gateway_port),
            "WARREN_TLS_PORT": str(self.tls_port),
            "WARREN_BRIDGE": f"wt{tag}",
            "WARREN_NETWORK": str(addresses.block()),
            "WARREN_POOL_SLOTS": "4",
            # Spares come and go in the background, so tests of what a server leaves ask for them by name; or all do.
            "WARREN_POOL_SANDBOXES": str(3 * SPARES),
            "WARREN_POOL": f"base/runsc={SPARES},base/crun={SPARES}",
            "WARREN_MAX_SLOTS": "60",
            "WARREN_PRIME_TEMPLATES": "0",
            **{f"WARREN_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self.gateway_port}"

    @property
    def domain(self) -> str:
        return f"e2b.localhost:{self.tls_port}"

    @property
    def ca_bundle(self) -> Path:
        return self.state / "tls" / "bundle.pem"

    @property
    def bridge(self) -> str:
        return self.settings["WARREN_BRIDGE"]

    @property
    def serving(self) -> list[str]:
        return [str(self.command), "serve"]

    @property
    def is_up(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def api_key(self) -> str:
        return (self.state / "local-key").read_text().strip()

    @property
    def options(self) -> dict[str, str]:
        """The same for one call of the `e2b` package, whatever the environment says."""
        return {
            "api_key": self.api_key,
            "api_url": self.api_url,
            "sandbox_url": self.gateway_url,
            "domain": self.domain,
        }

    @property
    def environment(self) -> dict[str, str]:
        """What the E2B clients need to find this server, in single-origin mode."""
        return {
            "E2B_API_KEY": self.api_key,
            "E2B_API_URL": self.api_url,
            "E2B_SANDBOX_URL": self.gateway_url,
            "E2B_VOLUME_API_URL": self.api_url,
            "E2B_DOMAIN": self.domain,
            "SSL_CERT_FILE": str(self.ca_bundle),
            "NODE_EXTRA_CA_CERTS": str(self.ca_bundle),
        }

    def start(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.serving,
                env={**_outer_environment(), **self.settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._wait_until_healthy()
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """Ask it to end, as a supervisor would; sandboxes live on."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """What a crash does: no clean-up of any kind."""
        self._end(signal.SIGKILL)

    def run(
        self, *arguments: str, stdin: str | None = None, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """The `warren` command line against this server."""
        return subprocess.run(
            [str(self.command), *arguments],
            env={**_outer_environment(), **self.settings, **self.environment, **(environment or {})},
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def placement(self, sandbox_id: str) -> dict[str, object]:
        """What the engine remembers of a running sandbox, its process among it."""
        path = Path("/run/warren") / self.bridge / "sandboxes" / sandbox_id / "placement.json"
        return json.loads(path.read_text())

    def end_process_of(self, sandbox_id: str) -> None:
        """Let a running sandbox die: its sentry, or its init under crun."""
        record = self.placement(sandbox_id)
        process = ProcessId(int(str(record["pid"])), int(str(record["started"])))
        pidfd = process.open()
        if pidfd is not None:
            kill(pidfd)
            os.close(pidfd)

    def tail(self, lines: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_DEADLINE_S)
            raise AssertionError(f"the server did not stop within {STOP_DEADLINE_S:.0f} s:\n{self.tail()}") from None

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline:
            if self._process is not None and self._process.poll() is not None:
                raise AssertionError(f"the server ended at start with {self._process.returncode}:\n{self.tail()}")
            if _answers(f"{self.api_url}/health") and (self.state / "local-key").exists():
                return
            time.sleep(POLL_S)
        raise AssertionError(f"the server did not answer within {START_DEADLINE_S:.0f} s:\n{self.tail()}")


def warren_command() -> Path:
    """The command line of the environment that runs the tests."""
    return Path(sys.executable).with_name("warren")


def free_ports(count: int) -> tuple[int, ...]:
    """Ports that nobody uses now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return tuple(each.getsockname()[1] for each in sockets)
    finally:
        for each in sockets:
            each.close()


def _outer_environment() -> dict[str, str]:
    """Ours, without what would point a server or a client somewhere else."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("WARREN_", "E2B_"))} | {
        name: os.environ[name]
        for name in ("WARREN_CACHE_DIR", "WARREN_GUESTD_PATH", "WARREN_RUNSC_PATH")
        if name in os.environ
    }


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2) as answer:
            return answer.status in (200, 204)
    except (URLError, OSError):
        return False
