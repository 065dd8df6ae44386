"""Where the probes run: a sandbox of a real server, reached through the `e2b` package, or a plain `docker run`."""

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
from e2b import CommandExitException, Sandbox

from bench import docker_target
from bench.docker_target import DockerTarget, private_docker
from tests.e2e.local_server import LocalServer
from warren.settings import Settings

PROBES = Path(__file__).with_name("probes")
GO = PROBES.parents[2] / "scripts" / "go"
BUILD_DEADLINE_S = 600
RUN_DEADLINE_S = 100
SANDBOX_LIFE_S = 900
PLACE = "/tmp/probes"
USERS = ("root", "user")

Finding = dict[str, str | bool]


def build(folder: Path) -> Path:
    """One static program, by the Go toolchain that builds guestd."""
    if platform.machine() != "x86_64":
        pytest.skip("the probes know the system calls of x86-64 only")
    binary = folder / "probes"
    command = [str(GO), "build", "-trimpath", "-ldflags", "-s -w", "-o", str(binary), "."]
    environment = {**os.environ, "CGO_ENABLED": "0"}
    built = subprocess.run(
        command, cwd=PROBES, env=environment, capture_output=True, text=True, timeout=BUILD_DEADLINE_S, check=False
    )
    assert built.returncode == 0, built.stderr
    return binary


class Inside(Protocol):
    canaries: Sequence[str]
    host_pid: int

    def put(self, name: str, content: bytes) -> None: ...
    def run(self, command: str, user: str) -> str: ...


@dataclass
class InSandbox:
    server: LocalServer
    sandbox: Sandbox

    @property
    def canaries(self) -> Sequence[str]:
        return [str(self.server.state), f"/run/warren/{self.server.bridge}", str(Settings().cache_dir), str(PROBES)]

    @property
    def host_pid(self) -> int:
        return self.server.pid

    def put(self, name: str, content: bytes) -> None:
        self.sandbox.files.write(name, content, user="root")

    def run(self, command: str, user: str) -> str:
        try:
            return self.sandbox.commands.run(command, user=user, timeout=RUN_DEADLINE_S).stdout
        except CommandExitException as error:
            raise AssertionError(f"{command}: {error.exit_code}: {error.stderr}{error.stdout}") from None


@dataclass
class InDocker:
    target: DockerTarget
    container: str
    host_pid: int

    @property
    def canaries(self) -> Sequence[str]:
        return [str(self.target.socket), str(PROBES), "/run/warren", "/var/cache/warren"]

    def put(self, name: str, content: bytes) -> None:
        self.target.call("exec", "-i", self.container, "sh", "-c", f"cat > {name}", data=content)

    def run(self, command: str, user: str) -> str:
        return self.target.call("exec", "-u", user, self.container, "bash", "-c", command).decode()


def probe(where: Inside, runtime: str, user: str) -> list[Finding]:
    """One batch: every probe of the program, as this user."""
    said = where.run(f"{PLACE} run {runtime} {where.host_pid} {' '.join(where.canaries)}", user)
    return [json.loads(line) for line in said.splitlines()]


def install(where: Inside, binary: Path) -> None:
    where.put(PLACE, binary.read_bytes())
    where.put(f"{PLACE}.py", (PROBES / "old_doors.py").read_bytes())
    where.run(f"chmod 755 {PLACE} {PLACE}.py", "root")


@contextmanager
def in_sandbox(server: LocalServer, runtime: str) -> Iterator[InSandbox]:
    headers = {"X-Warren-Runtime": runtime}
    with Sandbox.create(timeout=SANDBOX_LIFE_S, api_headers=headers, **server.options) as sandbox:
        yield InSandbox(server, sandbox)


@contextmanager
def in_docker(image: Path) -> Iterator[InDocker]:
    if not docker_target.installed():
        pytest.skip("docker is not installed: apt-get install docker.io")
    with ExitStack() as stack:
        try:
            target = stack.enter_context(private_docker(image))
        except RuntimeError as error:
            pytest.skip(str(error))
        said = target.call("run", "-d", "--network", "none", docker_target.IMAGE, "sleep", "900")
        # The daemon's own parent: a process of the host that nobody inside may find.
        yield InDocker(target, said.decode().strip(), host_pid=_parent())


def _parent() -> int:
    return int(Path("/proc/self/stat").read_text().split(") ")[-1].split()[1])
