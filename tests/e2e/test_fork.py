"""The fork-correctness contract, line by line (docs/reference/fork.md): what a copy shares, and what is its own."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from e2b import CommandHandle, Sandbox, SandboxException

from tests.e2e.local_server import LocalServer
from tests.e2e.waiting import until

Create = Callable[..., Sandbox]
COPIES = 3
LONG_S = 40.0
KEPT_ENVIRONMENT = "/var/lib/guestd/envs.json"

TELLER = """
import json, os, random, ssl, sys, time, uuid
random.random()
early = [random.random() for _ in range(3)]
ssl.RAND_bytes(8)
count = 0
while True:
    count += 1
    if os.path.exists("/tmp/ask"):
        told = {
            "count": count, "pid": os.getpid(),
            "random": random.random(), "ssl": ssl.RAND_bytes(16).hex(),
            "urandom": os.urandom(16).hex(), "uuid": str(uuid.uuid4()),
        }
        with open("/tmp/told.part", "w") as file:
            json.dump(told, file)
        os.rename("/tmp/told.part", "/tmp/told")
        os.unlink("/tmp/ask")
    time.sleep(0.01)
"""
NODE_TELLER = """
const fs = require("fs"), crypto = require("crypto");
Math.random(); crypto.randomBytes(8);
setInterval(() => {
  if (!fs.existsSync("/tmp/ask-node")) return;
  const told = {
    math: Math.random(), bytes: crypto.randomBytes(16).toString("hex"), uuid: crypto.randomUUID(),
    int: crypto.randomInt(2 ** 40),
    values: Buffer.from(globalThis.crypto.getRandomValues(new Uint8Array(16))).toString("hex"),
  };
  fs.writeFileSync("/tmp/told-node.part", JSON.stringify(told));
  fs.renameSync("/tmp/told-node.part", "/tmp/told-node");
  fs.unlinkSync("/tmp/ask-node");
}, 10);
"""
LISTENER = """
import os, random, signal, time
mine = random.Random(5)
def told(*_):
    mine.seed()
    with open("/tmp/heard.part", "w") as file:
        file.write(open("/run/warren/fork").read().strip() + f" {mine.random()}")
    os.rename("/tmp/heard.part", "/tmp/heard")
signal.signal(signal.SIGURG, told)
open("/tmp/listens", "w").close()
while True:
    time.sleep(0.05)
"""
"""Has a generator of its own, and a handler that reseeds it."""
HOOK = """#!/bin/sh
echo "$WARREN_FORK" > /tmp/hook-ran
id -u >> /tmp/hook-ran
"""


@dataclass
class Family:
    source: Sandbox
    copies: list[Sandbox]
    teller: CommandHandle | None
    """None under a runtime that copies files alone."""

    @property
    def all(self) -> list[Sandbox]:
        return [self.source, *self.copies]


def forked(results: list[Any]) -> list[Sandbox]:
    failed = [result for result in results if not isinstance(result, Sandbox)]
    assert failed == []
    return results


@pytest.fixture(scope="module")
def family(server: LocalServer, on_runtime: dict[str, Any], runtime: str) -> Iterator[Family]:
    source = Sandbox.create(
        timeout=300,
        envs={"SECRET": "of the source"},
        metadata={"k": "v"},
        network={"allow_public_traffic": False},
        **on_runtime,
    )
    copies: list[Sandbox] = []
    try:
        source.commands.run("sudo mkdir -p /etc/warren/after-fork.d")
        source.files.write("/etc/warren/after-fork.d/10-test", HOOK, user="root")
        source.commands.run("sudo chmod 755 /etc/warren/after-fork.d/10-test")
        teller = start_programs(source) if runtime == "runsc" else None
        copies = forked(source.fork(count=COPIES, timeout=300))
        yield Family(source, copies, teller)
    finally:
        for each in (source, *copies):
            each.kill()


def start_programs(source: Sandbox) -> CommandHandle:
    source.files.write("/tmp/teller.py", TELLER)
    source.files.write("/tmp/teller.cjs", NODE_TELLER)
    source.files.write("/tmp/listener.py", LISTENER)
    teller = source.commands.run("exec python3 /tmp/teller.py", background=True, timeout=0)
    source.commands.run("exec node /tmp/teller.cjs", background=True, timeout=0)
    source.commands.run("exec python3 /tmp/listener.py", background=True, timeout=0)
    told(source), told(source, "-node")
    until(lambda: source.files.exists("/tmp/listens"), LONG_S, "the listener listens")
    return teller


@pytest.fixture
def living(family: Family) -> Family:
    """One whose copies have their source's processes."""
    if family.teller is None:
        pytest.skip("only gVisor keeps memory")
    return family


def token_of(server: LocalServer, sandbox: Sandbox) -> str:
    url = f"{server.api_url}/sandboxes/{sandbox.sandbox_id}"
    return httpx.get(url, headers={"X-API-KEY": server.api_key}, timeout=30).json()["envdAccessToken"]


def told(sandbox: Sandbox, who: str = "") -> dict[str, Any]:
    """What the program inside says about itself now."""
    sandbox.files.remove(f"/tmp/told{who}") if sandbox.files.exists(f"/tmp/told{who}") else None
    sandbox.files.write(f"/tmp/ask{who}", "")
    until(lambda: sandbox.files.exists(f"/tmp/told{who}"), LONG_S, f"the program{who} answers")
    return json.loads(sandbox.files.read(f"/tmp/told{who}"))


def each_says(sandboxes: list[Sandbox], command: str) -> list[str]:
    return [sandbox.commands.run(command).stdout.strip() for sandbox in sandboxes]


def all_differ(values: list[Any]) -> bool:
    return len(set(values)) == len(values)


@pytest.mark.covers("S19")
def test_processes_go_on_in_every_copy_and_in_the_source(living: Family) -> None:
    assert living.teller is not None
    counts = [told(sandbox) for sandbox in living.all]
    assert {count["pid"] for count in counts} == {living.teller.pid}
    assert min(count["count"] for count in counts) > 10
    assert all(living.teller.pid in {process.pid for process in copy.commands.list()} for copy in living.copies)
    assert len(set(each_says(living.all, "cat /proc/sys/kernel/random/boot_id"))) == 1


@pytest.mark.covers("S19")
@pytest.mark.threat("D1")
def test_each_copy_has_an_identity_of_its_own(family: Family) -> None:
    ids = [sandbox.sandbox_id for sandbox in family.all]
    assert all_differ(ids)
    assert each_says(family.all, "hostname") == ids
    assert each_says(family.all, "cat /etc/hostname") == ids
    assert each_says(family.all, "getent hosts $(hostname) | wc -l") == ["1"] * (COPIES + 1)
    assert all_differ(each_says(family.all, "cat /etc/machine-id"))
    assert all_differ(each_says(family.all, "hostname -I || ip -4 -o addr show scope global"))
    assert each_says(family.all, "echo $E2B_SANDBOX_ID") == ids
    assert each_says(family.all, "cat /run/e2b/.E2B_SANDBOX_ID") == ids


@pytest.mark.covers("S19")
@pytest.mark.threat("D1")
def test_no_token_of_the_source_opens_a_copy(server: LocalServer, family: Family) -> None:
    def ask(sandbox: Sandbox, token: str) -> int:
        names = {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": "49983", "X-Access-Token": token}
        return httpx.get(f"{server.gateway_url}/envs", headers=names, timeout=30).status_code

    tokens = {each.sandbox_id: token_of(server, each) for each in family.all}
    assert all_differ(list(tokens.values()))
    for sandbox in family.all:
        for owner, token in tokens.items():
            assert ask(sandbox, token) == (200 if owner == sandbox.sandbox_id else 401)


@pytest.mark.covers("S19", "N04")
@pytest.mark.threat("D1")
def test_no_traffic_token_of_the_source_reaches_a_copy(server: LocalServer, family: Family) -> None:
    def ask(sandbox: Sandbox, token: str) -> int:
        names = {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": "8000", "E2b-Traffic-Access-Token": token}
        return httpx.get(f"{server.gateway_url}/", headers=names, timeout=30).status_code

    tokens = {each.sandbox_id: each.traffic_access_token or "" for each in family.all}
    assert all(tokens.values()) and all_differ(list(tokens.values()))
    for sandbox in family.all:
        for owner, token in tokens.items():
            assert ask(sandbox, token) == (502 if owner == sandbox.sandbox_id else 403), "502: nothing listens there"


@pytest.mark.covers("S19")
def test_a_copy_has_none_of_its_source_s_environment_unless_asked(family: Family) -> None:
    assert each_says(family.copies, "echo [$SECRET]") == ["[]"] * COPIES
    assert family.source.commands.run("echo [$SECRET]").stdout == "[of the source]\n"
    assert all(copy.get_info().metadata == {"k": "v"} for copy in family.copies)


@pytest.mark.covers("S19")
def test_a_copy_has_the_environment_that_was_asked_for(server: LocalServer, create: Create) -> None:
    source = create(envs={"SECRET": "of the source"})
    key = {"X-API-KEY": server.api_key}
    try:
        for asked, seen in (
            ({"inheritEnvVars": True}, "[of the source] []"),
            ({"inheritEnvVars": True, "envVars": {"OWN": "x"}}, "[] [x]"),
            ({"envVars": {"OWN": "x"}}, "[] [x]"),
            ({}, "[] []"),
        ):
            url = f"{server.api_url}/sandboxes/{source.sandbox_id}/fork"
            (item,) = httpx.post(url, json={"timeout": 60, **asked}, headers=key, timeout=60).json()
            with Sandbox.connect(item["sandbox"]["sandboxID"]) as copy:
                assert copy.commands.run("echo [$SECRET] [$OWN]").stdout.strip() == seen, asked
                assert not copy.files.exists(KEPT_ENVIRONMENT, user="root")
        assert source.commands.run("echo [$SECRET]").stdout == "[of the source]\n"
    finally:
        source.kill()


@pytest.mark.covers("S19")
def test_the_kernel_s_entropy_is_a_copy_s_own(living: Family) -> None:
    answers = [told(sandbox) for sandbox in living.all]
    assert all_differ([answer["urandom"] for answer in answers])
    assert all_differ([answer["uuid"] for answer in answers])


@pytest.mark.covers("S19")
@pytest.mark.parametrize("what", ["random", "ssl"])
def test_python_s_generators_are_reseeded(living: Family, what: str) -> None:
    assert all_differ([told(sandbox)[what] for sandbox in living.all])


@pytest.mark.covers("S19")
@pytest.mark.parametrize("what", ["math", "bytes", "uuid", "int", "values"])
def test_node_s_generators_are_replaced(living: Family, what: str) -> None:
    assert all_differ([told(sandbox, "-node")[what] for sandbox in living.all])


@pytest.mark.covers("S19")
def test_hooks_ran_as_root_and_know_the_generation(family: Family) -> None:
    generations = each_says(family.copies, "cat /run/warren/fork")
    assert all_differ(generations)
    assert each_says(family.copies, "cat /tmp/hook-ran") == [f"{generation}\n0" for generation in generations]
    assert not family.source.files.exists("/run/warren/fork")


@pytest.mark.covers("S19")
def test_a_program_s_own_handler_hears_of_it(living: Family) -> None:
    for copy in living.copies:
        until(lambda: copy.files.exists("/tmp/heard"), LONG_S, "the listener was told")  # noqa: B023
    heard = [said.split() for said in each_says(living.copies, "cat /tmp/heard")]
    assert [generation for generation, _ in heard] == each_says(living.copies, "cat /run/warren/fork")
    assert all_differ([drawn for _, drawn in heard])
    assert not living.source.files.exists("/tmp/heard")


@pytest.mark.covers("S19")
def test_a_copy_lives_on_when_its_source_ends(create: Create, runtime: str) -> None:
    source = create()
    source.files.write("/home/user/work", "done")
    (copy,) = forked(source.fork(timeout=120))
    try:
        source.kill()
        assert copy.files.read("/home/user/work") == "done"
        copy.files.write("/home/user/work", "more")
        assert 60 < (copy.get_info().end_at - copy.get_info().started_at).total_seconds() <= 121
        if runtime == "runsc":
            assert copy.pause() is True
            assert Sandbox.connect(copy.sandbox_id).files.read("/home/user/work") == "more"
    finally:
        copy.kill()


@pytest.mark.covers("S19")
def test_what_sleeps_cannot_be_forked(create: Create) -> None:
    sandbox = create()
    sandbox.pause()
    with pytest.raises(SandboxException, match="409"):
        sandbox.fork()
