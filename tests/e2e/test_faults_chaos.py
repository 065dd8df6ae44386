"""A short run of what `make chaos` does for long: rounds of create, use and kill while the ground is pulled away."""

import os
from pathlib import Path

import pytest
from e2b import Sandbox

from tests.chaos.rounds import Chaos, summary
from tests.e2e.cleanliness import nothing_left
from tests.e2e.local_server import LocalServer


@pytest.mark.threat("E1")
@pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes need root")
def test_rounds_under_fire_go_wrong_only_where_it_hit_and_leave_nothing(tmp_path: Path) -> None:
    server = LocalServer(tmp_path, pool_slots=4)
    with nothing_left(server), server:
        chaos = Chaos(server, workers=4, seed=7)
        chaos.run(20, server_dies=True)
        for info in Sandbox.list(**server.options).next_items():
            Sandbox.kill(info.sandbox_id, **server.options)
    assert chaos.outcome.wrong == [], "\n".join(summary(chaos.outcome))
    assert any(not each.error for each in chaos.outcome.rounds)
