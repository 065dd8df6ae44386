"""The idle ladder on the real runtimes: it sleeps by itself, and whatever comes finds it where it was."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from e2b import Sandbox, Template

from tests.e2e.cleanliness import nothing_left
from tests.e2e.local_server import LocalServer
from tests.e2e.test_sleep import through_gateway
from tests.e2e.test_sleep_limits import limited
from tests.e2e.waiting import until
from warren.model.policy import ALL_TRAFFIC

ASLEEP_S = 60
LADDERS = {"runsc": "base=1/-/4", "crun": "base=1/2/-"}
LAST_STEP = {"runsc": "disk", "crun": "memory"}


@pytest.fixture(scope="module")
def lazy(tmp_path_factory: pytest.TempPathFactory, runtime: str) -> Iterator[LocalServer]:
    server = LocalServer(tmp_path_factory.mktemp("lazy"), idle=LADDERS[runtime], runtime=runtime, max_slots=8)
    with nothing_left(server), server:
        yield server


def told(server: LocalServer, sandbox: Sandbox) -> dict[str, Any]:
    return json.loads(server.run("sandbox", "info", sandbox.sandbox_id, "--json").stdout)


def is_reclaimed(server: LocalServer, sandbox: Sandbox) -> bool:
    """Only the server's log tells this step from the one before."""
    lines = server.log.read_text(errors="replace").splitlines()
    return any("memory of an idle sandbox reclaimed" in line and sandbox.sandbox_id in line for line in lines)


def test_it_sleeps_by_itself_and_goes_on_when_somebody_comes(lazy: LocalServer, runtime: str) -> None:
    with Sandbox.create(timeout=300, allow_internet_access=False, **lazy.options) as sandbox:
        sandbox.commands.run("echo kept > /dev/shm/memory")
        ends = sandbox.get_info(**lazy.options).end_at

        def is_deep() -> bool:
            return told(lazy, sandbox).get("pausedIn") == LAST_STEP[runtime]

        until(is_deep, ASLEEP_S, "it sleeps as deep as it may")
        with limited(lazy, memory_mb=256):
            refused = through_gateway(lazy, sandbox, 8000)
            assert (refused.status_code, "memoryMB" in refused.text, is_deep()) == (403, True, True)
        assert sandbox.commands.run("cat /dev/shm/memory").stdout == "kept\n"
        assert sandbox.get_info(**lazy.options).end_at == ends
        assert lazy.placement(sandbox.sandbox_id)["deny"] == [str(ALL_TRAFFIC)], "under its rules"


def test_a_template_s_owner_says_how_deep_its_sandboxes_sleep(lazy: LocalServer) -> None:
    def asked(*options: str) -> dict[str, Any]:
        return json.loads(lazy.run("template", "idle", "light", *options, "--json").stdout)

    Template.build(Template().from_template("base").set_envs({"A": "1"}), "light", **lazy.options)
    assert asked() == {"setBy": "server"}
    assert asked("--freeze", "1", "--reclaim", "2") == {"freezeAfter": 1, "reclaimAfter": 2, "setBy": "template"}
    with Sandbox.create("light", timeout=300, **lazy.options) as sandbox:
        fill = "head -c 32M /dev/urandom | tee /dev/shm/heap > /var/tmp/pages; md5sum < /dev/shm/heap; sync"
        filled = sandbox.commands.run(fill).stdout
        until(lambda: is_reclaimed(lazy, sandbox), ASLEEP_S, "it sleeps as its template says")
        assert told(lazy, sandbox)["pausedIn"] == "memory"
        assert asked("--never") == {"setBy": "template"}
        assert sandbox.commands.run("echo $A").stdout == "1\n"
        for place in ("/dev/shm/heap", "/var/tmp/pages"):
            assert sandbox.commands.run(f"md5sum < {place}").stdout == filled


def test_who_is_at_work_stays_awake(lazy: LocalServer) -> None:
    with Sandbox.create(timeout=300, **lazy.options) as sandbox:
        # Its stream stays open, for somebody waits; falling asleep would cut it.
        handle = sandbox.commands.run("sleep 5; echo done", background=True)
        assert handle.wait().stdout == "done\n"
