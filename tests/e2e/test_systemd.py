"""The unit under a systemd that runs: it starts the server, brings it back after a crash, and never ends a sandbox."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from e2b import Sandbox

from tests.e2e.cleanliness import nothing_left
from tests.e2e.local_server import LocalServer
from tests.e2e.systemd_machine import SYSTEMD, Systemd
from tests.e2e.waiting import until

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "warren.service"
LATE_S = 60


class Service(LocalServer):
    """The server as a unit; `start` and `stop` are systemd's."""

    systemd: Systemd

    def unit(self) -> str:
        text = re.sub(r"^ExecStart=\S+", f"ExecStart={self.command}", UNIT.read_text(), flags=re.M)
        settings = self.folder / "environment"
        settings.write_text("".join(f"{name}={value}\n" for name, value in self.settings.items()))
        return text.replace("EnvironmentFile=-/etc/warren/environment", f"EnvironmentFile={settings}")

    def start(self) -> Self:
        done = self.systemd.control("start", "warren")
        assert done.returncode == 0, done.stderr
        self._wait_until_healthy()
        return self

    def stop(self) -> None:
        assert self.systemd.control("stop", "warren").returncode == 0

    def shows(self, name: str) -> str:
        return self.systemd.control("show", "warren", f"--property={name}", "--value").stdout.strip()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    if os.geteuid() != 0 or not SYSTEMD.exists():
        pytest.skip("needs root, and systemd installed")
    server = Service(tmp_path, pool_slots=2)
    with nothing_left(server), Systemd(tmp_path / "systemd", {"warren.service": server.unit()}) as server.systemd:
        with server:
            yield server
            for info in Sandbox.list(**server.options).next_items():
                Sandbox.kill(info.sandbox_id, **server.options)


def test_the_unit_starts_restarts_and_stops_the_server_and_no_sandbox(service: Service) -> None:
    boxes = [
        Sandbox.create(timeout=600, api_headers={"X-Warren-Runtime": runtime}, **service.options)
        for runtime in ("runsc", "crun")
    ]
    assert _all_answer(boxes)
    first = service.shows("MainPID")
    assert service.systemd.control("restart", "warren").returncode == 0
    service._wait_until_healthy()  # pyright: ignore[reportPrivateUsage]
    second = service.shows("MainPID")
    assert first != second and _all_answer(boxes)
    assert service.systemd.control("kill", "--kill-who=main", "--signal=KILL", "warren").returncode == 0
    until(lambda: service.shows("MainPID") not in ("0", second), LATE_S, "systemd starts it again")
    service._wait_until_healthy()  # pyright: ignore[reportPrivateUsage]
    assert service.shows("NRestarts") == "1" and _all_answer(boxes)
    service.stop()
    assert service.shows("ActiveState") == "inactive"
    service.start()
    assert _all_answer(boxes)
    assert all(box.kill() for box in boxes)


def _all_answer(boxes: list[Sandbox]) -> bool:
    return [box.commands.run("sudo echo on").stdout for box in boxes] == ["on\n"] * len(boxes)
