"""Pauses while the disk fills up, and resumes from images that somebody damaged.

Whatever happens the sandbox runs or sleeps and is all there, or says that it cannot be had back and offers its files;
it can be killed, and then nothing is left.
"""

import random
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from e2b import Sandbox, SandboxException, SandboxState

from tests.chaos.operations import BOUND_S, LIFE_S
from tests.chaos.rounds import RUNTIMES
from tests.chaos.sleep_operations import FILE, Sleeper, asleep, awake, is_whole, state_of
from tests.e2e.local_server import LocalServer
from tests.e2e.small_disk import PLENTY_MB, checkpoints, resize, room_until_it_is_written, spoil
from tests.e2e.waiting import until
from warren.durable import files_below

LATEST_S = 0.15
MOST_LEFT_MB = 96
DAMAGES = ("flipped", "truncated", "removed")


def damage_rounds(server: LocalServer, count: int, seed: int) -> Iterator[str]:
    """Findings. The server's state folder is on a disk of its own."""
    resize(server, PLENTY_MB)
    for number in range(count):
        chance, runtime = random.Random(f"{seed} {number}"), RUNTIMES[number % len(RUNTIMES)]
        deed = _on_a_disk_that_fills_up if chance.random() < 0.5 else _with_a_damaged_image
        try:
            deed(server, runtime, chance)
        except Exception as error:
            yield f"round {number} of damage ({deed.__name__.strip('_')}, {runtime}): {type(error).__name__}: {error}"


def _on_a_disk_that_fills_up(server: LocalServer, runtime: str, chance: random.Random) -> None:
    sleeper = awake(server, runtime)
    mode = chance.choice(("full", "filesystem")) if runtime == "runsc" else "filesystem"
    sleeper.sandbox.commands.run("head -c 48M /dev/urandom | tee /dev/shm/large > /home/user/large")
    if mode == "filesystem":  # then all that it wrote is on the disk before that is full
        sleeper.sandbox.pause(mode=mode)
        sleeper = replace(sleeper, sandbox=sleeper.sandbox.connect(timeout=LIFE_S))
        until(lambda: not checkpoints(server), BOUND_S, "what woke it is forgotten")
    paused = False
    with (
        room_until_it_is_written(server, chance.randrange(MOST_LEFT_MB), chance.uniform(0, LATEST_S)),
        suppress(SandboxException),
    ):
        paused = sleeper.sandbox.pause(mode=mode, retries=0)
    assert state_of(server, sleeper) is (SandboxState.PAUSED if paused else SandboxState.RUNNING)
    is_whole(server, sleeper, memory=mode == "full")
    _leaves_nothing(server, sleeper)


def _with_a_damaged_image(server: LocalServer, runtime: str, chance: random.Random) -> None:
    sleeper = asleep(server, runtime, mode="full" if runtime == "runsc" else "filesystem")
    (folder,) = checkpoints(server)
    image, damage = chance.choice(files_below(folder)), chance.choice(DAMAGES)
    if damage == "removed":
        image.unlink()
    else:
        spoil(image, damage)
    if chance.random() < 0.7:  # the one that wrote it has seen it whole
        server.kill()
        server.start()
    refusals = [words for on_resume in ("restore", "reboot") if (words := _refusal(server, sleeper, on_resume))]
    where = f"after {image.relative_to(folder)} was {damage}"
    assert all(re.search(r"checkpoint", words) for words in refusals), f"{refusals} {where}"
    if len(refusals) < 2:
        assert Sandbox.connect(sleeper.id, **server.options).files.read(FILE) == sleeper.text, where
    else:
        assert state_of(server, sleeper) is SandboxState.PAUSED, where
    _leaves_nothing(server, sleeper)


def _refusal(server: LocalServer, sleeper: Sleeper, on_resume: str) -> str:
    """Why it cannot be had back in this way; "" when it can. One that runs by then goes on."""
    try:
        Sandbox.connect(sleeper.id, timeout=LIFE_S, on_resume=on_resume, retries=0, **server.options)
    except SandboxException as error:
        return str(error)
    return ""


def _leaves_nothing(server: LocalServer, sleeper: Sleeper) -> None:
    assert Sandbox.kill(sleeper.id, **server.options), "what cannot be had back can be killed"
    until(lambda: not checkpoints(server), BOUND_S, "nothing of it is left")
