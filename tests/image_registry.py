"""Debian's docker-registry on loopback, for the time of a test."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.oci_image import Image

BINARY = "docker-registry"
START_DEADLINE_S = 30.0
USER, PASSWORD = "me", "geheim"
PASSWORDS = f"{USER}:$2b$05$aaaaaaaaaaaaaaaaaaaaaOULOK8DP8SzlWPBf6YfsBmNbCsFdp54u\n"
"""Those two, as bcrypt keeps them."""


@dataclass
class ImageRegistry:
    folder: Path
    host: str
    log: Path

    def push(self, name: str, image: Image, *options: str) -> str:
        """The reference to pull it by."""
        layout = image.layout(self.folder / f"layout-{name.replace('/', '-').replace(':', '-')}")
        target = f"{self.host}/{name}"
        subprocess.run(
            ["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", *options,
             f"oci:{layout}:image", f"docker://{target}"],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        return target


@contextlib.contextmanager
def image_registry(folder: Path, *, closed: bool = False) -> Generator[ImageRegistry]:
    """A closed one asks for USER and PASSWORD."""
    if shutil.which(BINARY) is None:
        pytest.skip("no docker-registry; run `scripts/setup tests`")
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    log = folder / "registry.log"
    environment = {"PATH": os.environ["PATH"], "REGISTRY_HTTP_SECRET": "x"}
    config = [
        "version: 0.1",
        "storage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}" % (folder / "blobs"),
        f"http: {{addr: '{host}'}}",
    ]
    if closed:
        (folder / "passwords").write_text(PASSWORDS)
        config.append(f"auth: {{htpasswd: {{realm: test, path: {folder / 'passwords'}}}}}")
    (folder / "config.yml").write_text("\n".join(config) + "\n")
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [BINARY, "serve", str(folder / "config.yml")], env=environment, stdout=output, stderr=output
        ) as process,
    ):
        try:
            _wait_for(host, process, log)
            yield ImageRegistry(folder, host, log)
        finally:
            process.terminate()


def _wait_for(host: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    name, _, port = host.partition(":")
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((name, int(port)), 1):
            return
        assert process.poll() is None, log.read_text(errors="replace")
        time.sleep(0.05)
    raise AssertionError(f"no registry at {host}")
