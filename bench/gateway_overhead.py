"""What the gateway adds to one small request: the same request through it and past it, in turn."""

import http.client
import statistics
from dataclasses import dataclass

from bench.samples import milliseconds
from bench.warren_target import WarrenBox
from tests.e2e.local_server import LocalServer

GUEST_PORT = 49983
ROUNDS = 400
WARM_UP = 40


@dataclass
class Overhead:
    through_ms: float
    past_ms: float

    @property
    def added_ms(self) -> float:
        return self.through_ms - self.past_ms


def measure(server: LocalServer, box: WarrenBox) -> Overhead:
    """Medians over keep-alive connections; the guest's /health does next to nothing, so the way there counts."""
    sandbox_id = box.sandbox.sandbox_id
    through = http.client.HTTPConnection("127.0.0.1", server.gateway_port, timeout=10)
    past = http.client.HTTPConnection(str(server.placement(sandbox_id)["address"]), GUEST_PORT, timeout=10)
    headers = {"E2b-Sandbox-Id": sandbox_id, "E2b-Sandbox-Port": str(GUEST_PORT)}
    taken: dict[str, list[float]] = {"through": [], "past": []}
    for _ in range(ROUNDS + WARM_UP):
        taken["through"].append(milliseconds(lambda: _ask(through, headers)))
        taken["past"].append(milliseconds(lambda: _ask(past, {})))
    through.close()
    past.close()
    return Overhead(
        through_ms=statistics.median(taken["through"][WARM_UP:]), past_ms=statistics.median(taken["past"][WARM_UP:])
    )


def _ask(connection: http.client.HTTPConnection, headers: dict[str, str]) -> None:
    connection.request("GET", "/health", headers=headers)
    answer = connection.getresponse()
    answer.read()
    if answer.status != 204:
        raise RuntimeError(f"cannot get 204 from /health: {answer.status}")
