"""`warren uninstall` leaves the machine as it was."""

import os
from pathlib import Path

import pytest
from e2b import Sandbox

from tests.e2e.cleanliness import nothing_left
from tests.e2e.local_server import LocalServer
from warren.settings import DEFAULT_CACHE_DIR

BUILT = Path(os.environ.get("WARREN_CACHE_DIR", DEFAULT_CACHE_DIR))


@pytest.mark.usefixtures("server")  # skips where it cannot run
def test_a_machine_is_left_as_it_was_and_never_under_a_server_that_runs(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    for name in ("bin", "templates"):  # not its own: only the links go
        (cache / name).symlink_to(BUILT / name)
    local = LocalServer(tmp_path / "server", cache_dir=str(cache), pool_sandboxes=0)
    with nothing_left(local), local:
        Sandbox.create(timeout=600, api_headers={"X-Warren-Runtime": "crun"}, **local.options)
        refused = local.run("uninstall", "--yes")
        assert refused.returncode == 1 and "while a server runs" in refused.stderr
        assert local.state.exists()
        local.stop()
        done = local.run("uninstall", "--yes")
        assert done.returncode == 0, done.stderr
        assert "1 sandboxes were running" in done.stdout
        assert not local.state.exists() and not cache.exists()
    assert (BUILT / "bin").exists()
