"""The same root file system under `docker run` and `docker exec`, on a daemon of the bench's own.

It has its own socket, data and exec folders, no bridge and no firewall rules: nothing that it does touches another
Docker of this machine, and nothing of it stays.
"""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CLIENT, DAEMON = "/usr/bin/docker", "/usr/sbin/dockerd"
IMAGE = "bench-base"
START_DEADLINE_S = 60.0
CALL_DEADLINE_S = 120.0


@dataclass
class DockerBox:
    docker: "DockerTarget"
    container: str

    def true(self) -> None:
        self.docker.call("exec", self.container, "true")

    def login_true(self) -> None:
        self.docker.call("exec", "-u", "user", self.container, "bash", "-l", "-c", "true")

    def echo(self) -> None:
        if self.docker.call("exec", "-u", "user", self.container, "bash", "-l", "-c", "echo hello") != b"hello\n":
            raise RuntimeError("cannot read the echo")

    def write(self, data: bytes) -> None:
        self.docker.call("exec", "-i", self.container, "sh", "-c", "cat > /home/user/bench.bin", data=data)

    def read(self, size: int) -> None:
        if len(self.docker.call("exec", self.container, "cat", "/home/user/bench.bin")) != size:
            raise RuntimeError("cannot read back what was written")

    def delete(self) -> None:
        self.docker.call("rm", "-f", self.container)


@dataclass
class DockerTarget:
    socket: Path
    name: str = "docker"
    runtime: str = "docker"

    def settle(self) -> None:
        """Docker keeps nothing ready."""

    def create(self) -> DockerBox:
        limits = ("--memory", "1g", "--memory-swap", "1g", "--cpus", "2", "--pids-limit", "1024")
        said = self.call("run", "-d", "--network", "none", *limits, IMAGE, "sleep", "900")
        return DockerBox(self, said.decode().strip())

    def call(self, *arguments: str, data: bytes | None = None) -> bytes:
        command = [CLIENT, "-H", f"unix://{self.socket}", *arguments]
        run = subprocess.run(command, input=data, capture_output=True, timeout=CALL_DEADLINE_S, check=False)
        if run.returncode != 0:
            raise RuntimeError(f"cannot docker {arguments[0]}: {run.stderr.decode(errors='replace').strip()}")
        return run.stdout


def base_image(state: Path) -> Path:
    """Of the templates that a server has, the smallest. Raises ValueError when there is none."""
    return min(state.glob("templates/*/rootfs.erofs"), key=lambda path: path.stat().st_size)


def installed() -> bool:
    return Path(CLIENT).exists() and Path(DAEMON).exists()


@contextmanager
def private_docker(image: Path) -> Iterator[DockerTarget]:
    """A daemon with the template's tree imported; gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="warren-bench-docker-", dir="/var/tmp"))
    socket, log = folder / "docker.sock", folder / "dockerd.log"
    command = [
        DAEMON, "--host", f"unix://{socket}", "--data-root", str(folder / "data"), "--exec-root", str(folder / "exec"),
        "--pidfile", str(folder / "pid"), "--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false",
    ]  # fmt: skip
    with log.open("wb") as output:
        daemon = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        target = DockerTarget(socket)
        _wait(target, daemon, log)
        _import(target, image, folder)
        yield target
        for container in target.call("ps", "-aq").decode().split():
            target.call("rm", "-f", container)
    finally:
        daemon.terminate()
        try:
            daemon.wait(START_DEADLINE_S)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait(target: DockerTarget, daemon: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while True:
        try:
            target.call("version")
            return
        except RuntimeError as error:
            if daemon.poll() is not None or time.monotonic() > deadline:
                words = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
                raise RuntimeError(f"cannot start a private dockerd:\n{words}") from error
            time.sleep(0.1)


def _import(target: DockerTarget, image: Path, folder: Path) -> None:
    """The template's tree as an image; the mount lives in a namespace of its own and ends with it."""
    tree = folder / "tree"
    tree.mkdir()
    script = 'mount -t erofs -o loop,ro "$1" "$2" && exec tar -C "$2" --numeric-owner -c .'
    pack = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", str(image), str(tree)]
    with subprocess.Popen(pack, stdout=subprocess.PIPE) as packing:
        command = [CLIENT, "-H", f"unix://{target.socket}", "import", "-", IMAGE]
        subprocess.run(command, stdin=packing.stdout, check=True, capture_output=True, timeout=300)
    if packing.returncode != 0:
        raise RuntimeError("cannot pack the template's tree for docker; is it an EROFS image?")
