"""`warren sandbox pause|resume|fork|snapshot` and `warren snapshot list|delete` against the real server."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from secrets import token_hex

import pytest
from e2b import CommandHandle, Sandbox

from tests.e2e.conftest import RUNTIMES
from tests.e2e.local_server import LocalServer

Create = Callable[..., Sandbox]
BOOT_ID = "/proc/sys/kernel/random/boot_id"


def succeed(server: LocalServer, *words: str) -> str:
    done = server.run(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(server: LocalServer, *words: str) -> str:
    """In one line, with the code of what went wrong."""
    done = server.run(*words)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    return done.stderr


def still_has(sandbox: Sandbox, process: CommandHandle) -> bool:
    return process.pid in {each.pid for each in sandbox.commands.list()}


@pytest.mark.covers("S07", "S15", "S16")
def test_a_sandbox_is_paused_and_resumed(server: LocalServer, create: Create, runtime: str) -> None:
    sandbox = create()
    process = sandbox.commands.run("exec sleep 1000", background=True, timeout=0)
    booted = sandbox.files.read(BOOT_ID)
    if runtime == "crun":
        assert "cannot keep memory on disk" in refused(server, "sandbox", "pause", sandbox.sandbox_id, "--durable")
        assert sandbox.is_running()
        succeed(server, "sandbox", "pause", sandbox.sandbox_id)
    else:
        said = succeed(server, "sandbox", "pause", sandbox.sandbox_id, "--durable", "--json")
        assert json.loads(said) == {"paused": sandbox.sandbox_id}
    shown = succeed(server, "sandbox", "info", sandbox.sandbox_id)
    assert ("memory and files, on disk" if runtime == "runsc" else "frozen in memory: a restart") in shown
    awake = json.loads(succeed(server, "sandbox", "resume", sandbox.sandbox_id, "--timeout", "1000", "--json"))
    assert awake["sandboxID"] == sandbox.sandbox_id
    assert (sandbox.get_info().end_at - datetime.now(UTC)).total_seconds() > 900
    assert still_has(sandbox, process) and sandbox.files.read(BOOT_ID) == booted

    succeed(server, "sandbox", "pause", sandbox.sandbox_id, *(["--files-only"] if runtime == "crun" else []))
    succeed(server, "sandbox", "resume", sandbox.sandbox_id, *(["--boot"] if runtime == "runsc" else []))
    assert not still_has(sandbox, process) and sandbox.files.read(BOOT_ID) != booted


@pytest.mark.covers("S19", "S20")
def test_a_sandbox_is_copied(server: LocalServer) -> None:
    keeps_memory, name = RUNTIMES[0] == "runsc", f"cli-{token_hex(4)}"
    source = Sandbox.create(envs={"KEPT": "of the source"}, api_headers={"X-Warren-Runtime": RUNTIMES[0]})
    process = source.commands.run("exec sleep 1000", background=True, timeout=0)
    made = [source.sandbox_id]
    try:
        made += succeed(server, "sandbox", "fork", source.sandbox_id, "--count", "2", "--inherit-env").split()
        own = succeed(server, "sandbox", "fork", source.sandbox_id, "--env", "OWN=a=b", "--timeout", "60", "--json")
        made += [copy["sandbox"]["sandboxID"] for copy in json.loads(own)]
        snapshot = succeed(server, "sandbox", "snapshot", source.sandbox_id, "--name", name).strip()
        files = json.loads(succeed(server, "sandbox", "snapshot", source.sandbox_id, "--files-only", "--json"))
        made += [Sandbox.create(template).sandbox_id for template in (name, files["snapshotID"])]
        copies = [Sandbox.connect(one) for one in made[1:]]
        assert [copy.commands.run("echo [$KEPT] [$OWN]; hostname").stdout for copy in copies] == [
            *(f"[of the source] []\n{one}\n" for one in made[1:3]),
            f"[] [a=b]\n{made[3]}\n",
            *(f"[] []\n{one}\n" for one in made[4:]),
        ]
        assert [still_has(copy, process) for copy in copies] == [keeps_memory] * 4 + [False]

        listed = json.loads(succeed(server, "snapshot", "list", "--sandbox", source.sandbox_id, "--json"))
        assert [(row["snapshotID"], row["mode"]) for row in listed] == [
            (files["snapshotID"], "filesystem"),
            (snapshot, "full" if keeps_memory else "filesystem"),
        ]
        named = succeed(server, "snapshot", "list", "--name", name)
        assert snapshot in named and files["snapshotID"] not in named and source.sandbox_id in named
        succeed(server, "snapshot", "delete", snapshot, files["snapshotID"])
        assert json.loads(succeed(server, "snapshot", "list", "--sandbox", source.sandbox_id, "--json")) == []
        assert snapshot in refused(server, "snapshot", "delete", snapshot)
    finally:
        for one in made:
            Sandbox.kill(one)
