"""Checkpoints and standstills of real sandboxes, seen from inside them. Needs root."""

import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests import addresses, leaks
from tests.integration.inside import introduce, run
from warren.contracts.engine import Restore, SandboxSpec
from warren.engine.oci.engine import OciEngine
from warren.model.errors import AlreadyExists, CheckpointUnusable, EngineFailed, NoSpace, SandboxChanging, WarrenError
from warren.model.sandbox import Resources
from warren.model.snapshot import SnapshotKind
from warren.model.template import TemplateImage
from warren.settings import Settings, load

pytestmark = [
    pytest.mark.root,
    pytest.mark.anyio,
    pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes need root"),
]
SIZE = Resources(cpu_count=1, memory_mb=256, disk_mb=256, pids=100)
MEMORY, FILES = SnapshotKind.MEMORY, SnapshotKind.FILESYSTEM
PATIENCE_S = 30.0
COUNTER = """
import random, socket, threading, time
count, secret = 0, random.getrandbits(64)
loop = socket.create_server(("127.0.0.1", 0))
near = socket.create_connection(loop.getsockname())
far = loop.accept()[0]
def work():
    global count
    while True:
        near.sendall(b"x")
        assert far.recv(1) == b"x"
        count += 1
        time.sleep(0.002)
def serve(peer):
    for line in peer.makefile("rb"):
        peer.sendall(b"%d %d\\n" % (count, secret))
threading.Thread(target=work, daemon=True).start()
server = socket.create_server(("0.0.0.0", 8000))
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""
"""Counts by way of a connection to itself, and tells whoever asks on port 8000."""

FILL = """
import os, time
heap = bytearray(b"x" * (64 << 20))
open("/root/full", "w").close()
while not os.path.exists("/root/check"): time.sleep(0.05)
print("whole" if heap.count(b"x") == len(heap) else "torn")
"""

TOTAL = "grep MemTotal /proc/meminfo"

_numbers = iter(range(1, 1000))


class Machine:
    """Settings and a template of one test, and what it leaves."""

    def __init__(self, state_dir: Path) -> None:
        tag = secrets.token_hex(2)
        base = load({name: value for name, value in os.environ.items() if name.startswith("WARREN_")})
        built = Path(__file__).parents[2] / "guestd" / "bin" / "guestd"
        found = sorted(base.cache_dir.glob("templates/base-*/rootfs.erofs"))
        if not found:
            pytest.skip("no base template in the cache; run `make setup`")
        self.image = TemplateImage("sha256:unchecked", str(found[-1]))
        self.settings = Settings(
            state_dir=state_dir,
            cache_dir=base.cache_dir,
            runsc_path=base.runsc_path,
            guestd_path=base.guestd_path or (str(built) if built.exists() else ""),
            bridge=f"ws{tag}",
            network=addresses.block(28),
            pool_slots=2,
            max_slots=6,
        )

    @property
    def checkpoints(self) -> Path:
        return self.settings.state_dir / "engine" / "checkpoints"

    @property
    def run(self) -> Path:
        return Path("/run/warren", self.settings.bridge)

    def spec(self, runtime: str, **changes: object) -> SandboxSpec:
        spec = SandboxSpec(f"isleep{next(_numbers):015d}", runtime, self.image, "box", SIZE)
        return replace(spec, **changes)  # pyright: ignore[reportArgumentType]

    @asynccontextmanager
    async def engine(self, **changes: object) -> AsyncIterator[OciEngine]:
        """Everything that it made is gone at the end."""
        before = leaks.snapshot(self.settings.bridge, self.settings.state_dir)
        engine = OciEngine(replace(self.settings, **changes))  # pyright: ignore[reportArgumentType]
        await engine.open()
        try:
            yield engine
        finally:
            for placement in await engine.list():
                await engine.destroy(placement.id)
            for checkpoint in await engine.checkpoints():
                await engine.forget(checkpoint.id)
            left = list(self.checkpoints.iterdir())
            await engine.close()
        assert left == []
        assert leaks.difference(before, leaks.snapshot(self.settings.bridge, self.settings.state_dir)) == {}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    return Machine(tmp_path / "state")


def checkpoint_id() -> str:
    return f"csleep{next(_numbers):015d}"


def ask(peer: socket.socket) -> tuple[int, int]:
    """The counter's state: how far it is, and its secret."""
    peer.sendall(b"\n")
    count, secret = peer.makefile("rb").readline().split()
    return int(count), int(secret)


def goes_on(peer: socket.socket, since: int) -> bool:
    """Whether the counter comes further than `since`."""
    ends = time.monotonic() + PATIENCE_S
    while ask(peer)[0] <= since:
        if time.monotonic() > ends:
            return False
    return True


def dial(address: str, deadline_s: float = PATIENCE_S) -> socket.socket:
    ends = time.monotonic() + deadline_s
    while True:
        try:
            return socket.create_connection((address, 8000), timeout=PATIENCE_S)
        except OSError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.05)


async def counting(machine: Machine, engine: OciEngine) -> str:
    """A sandbox with the counter in it, and a file; its address."""
    placement = await engine.create(machine.spec("runsc"))
    await introduce(placement.address)
    run(placement.address, "head -c 5M /dev/urandom > /root/file; sha256sum /root/file > /root/sum; rm -rf /usr/games")
    run(placement.address, f"cat > /root/count.py <<'E'\n{COUNTER}\nE")
    run(placement.address, "setsid python3 /root/count.py > /dev/null 2>&1 &")
    dial(placement.address).close()
    return placement.id


async def test_memory_goes_on_in_copies_and_in_the_source(machine: Machine) -> None:
    async with machine.engine() as engine:
        source = await counting(machine, engine)
        address = {placement.id: placement.address for placement in await engine.list()}[source]
        name, boot = checkpoint_id(), run(address, "cat /proc/sys/kernel/random/boot_id")
        with dial(address) as open_connection:
            before, secret = ask(open_connection)
            assert outside(address) == {address_hex(address)}
            made = await engine.checkpoint(source, name, MEMORY, hold=False)
            assert goes_on(open_connection, before), "the source and its connections go on"
            assert ask(open_connection)[1] == secret
        assert made.bytes > 5_000_000
        with pytest.raises(AlreadyExists):
            await engine.checkpoint(source, name, MEMORY, hold=False)
        copies = [
            await engine.create(machine.spec("runsc", hostname=f"copy{number}", restore=Restore(name, MEMORY)))
            for number in range(3)
        ]
        assert len({address, *(copy.address for copy in copies)}) == 4
        for number, copy in enumerate(copies):
            with dial(copy.address) as peer:
                count, same = ask(peer)
                assert (count >= before, same) == (True, secret)
                assert goes_on(peer, count)
            seen = run(copy.address, f"cat /proc/sys/kernel/random/boot_id; hostname; sha256sum -c /root/sum; {TOTAL}")
            assert seen.splitlines() == [boot, f"copy{number}", "/root/file: OK", run(address, TOTAL)]
            assert abs(float(run(copy.address, "date +%s.%N")) - time.time()) < 1
            assert outside(copy.address) == set(), "no connection of the earlier life is open"
        await engine.forget(name)
        with dial(copies[0].address) as peer:
            assert ask(peer)[1] == secret


def outside(address: str) -> set[str]:
    """Own addresses of established connections that are not within the sandbox, as /proc/net/tcp writes them."""
    rows = [row.split() for row in run(address, "cat /proc/net/tcp").splitlines()[1:]]
    ours = {row[1].split(":")[0] for row in rows if row[3] == "01"}
    return ours - {address_hex("127.0.0.1")}


def address_hex(address: str) -> str:
    return socket.inet_aton(address)[::-1].hex().upper()


async def test_files_of_a_gvisor_sandbox_boot_again(machine: Machine) -> None:
    async with machine.engine() as engine:
        source = await counting(machine, engine)
        address = {placement.id: placement.address for placement in await engine.list()}[source]
        boot = run(address, "truncate -s 1T /root/huge; ln /root/file /root/link; cat /proc/sys/kernel/random/boot_id")
        whole, alone = checkpoint_id(), checkpoint_id()
        await engine.checkpoint(source, whole, MEMORY, hold=False)
        small = await engine.checkpoint(source, alone, FILES, hold=True)
        assert small.bytes < 20_000_000, "a hole takes no room"
        await engine.destroy(source)
        for name in (whole, alone):
            copy = await engine.create(machine.spec("runsc", restore=Restore(name, FILES)))
            await introduce(copy.address)
            await engine.forget(name)
            seen = run(copy.address, "sha256sum -c /root/sum; stat -c '%s %h' /root/huge /root/link; ls /usr/games")
            lines = seen.splitlines()
            assert lines[:3] == ["/root/file: OK", f"{1 << 40} 1", f"{5 << 20} 2"]
            assert "No such file" in lines[3]
            assert run(copy.address, "cat /proc/sys/kernel/random/boot_id") != boot
            assert run(copy.address, "pgrep -fc count.py") == "0"


@pytest.mark.threat("D6")
async def test_a_checkpoint_that_does_not_fit_is_refused_and_stays(machine: Machine) -> None:
    async with machine.engine() as engine:
        source, name = await counting(machine, engine), checkpoint_id()
        await engine.checkpoint(source, name, MEMORY, hold=True)
        await engine.destroy(source)
        folder = machine.checkpoints / name
        manifest, pages = folder / "manifest.json", folder / "memory" / "pages.img"
        good = manifest.read_text()
        assert (folder.stat().st_mode & 0o777, pages.stat().st_mode & 0o777) == (0o700, 0o600)

        async def refused(why: str, kind: SnapshotKind = MEMORY, **changes: object) -> None:
            with pytest.raises(CheckpointUnusable, match=why):
                await engine.create(machine.spec("runsc", restore=Restore(name, kind), **changes))
            assert await engine.list() == []

        for changed, why in (
            ({"build": "runsc-of-yesterday"}, "needs the build runsc-of-yesterday.*memory: false"),
            ({"cpu_flags": ["warp9"]}, "needs a processor with warp9.*memory: false"),
            ({"image": "sha256:other"}, "template build sha256:other"),
            ({"guest": "gone"}, "guestd that it runs is gone.*memory: false"),
            ({"version": 99}, "another version of Warren wrote it.*memory: false"),
        ):
            manifest.write_text(json.dumps({**json.loads(good), **changed}))
            await refused(why)
        (listed,) = await engine.checkpoints()
        assert listed.id == name
        assert (listed.kind, listed.unreadable) == (FILES, "")
        manifest.write_text(good)
        await refused("disk has 256 MiB", resources=replace(SIZE, disk_mb=512))
        await refused("256 MiB of memory", resources=replace(SIZE, memory_mb=128))

        with open(pages, "r+b") as file:
            byte = file.read(1)
            file.seek(0)
            file.write(bytes([byte[0] ^ 1]))
        await refused("pages.img is damaged.*memory: false")
        with open(pages, "r+b") as file:
            file.write(byte)
        copy = await engine.create(machine.spec("runsc", restore=Restore(name, MEMORY)))
        with dial(copy.address) as peer:
            ask(peer)
        await engine.destroy(copy.id)
        os.truncate(pages, pages.stat().st_size - 4096)
        await refused("pages.img is damaged")
        await introduce((await engine.create(machine.spec("runsc", restore=Restore(name, FILES)))).address)


@pytest.mark.threat("D6")
async def test_with_a_key_nothing_of_memory_is_on_the_disk_in_the_open(machine: Machine, tmp_path: Path) -> None:
    key, other = tmp_path / "key", tmp_path / "other"
    for path in (key, other):
        path.write_bytes(secrets.token_bytes(32))
        path.chmod(0o600)
    name, files, plain = checkpoint_id(), checkpoint_id(), checkpoint_id()
    async with machine.engine(checkpoint_key_file=str(key)) as engine:
        source = await counting(machine, engine)
        await engine.checkpoint(source, name, MEMORY, hold=False)
        await engine.checkpoint(source, files, FILES, hold=False)
        assert not any(
            b"near.sendall" in path.read_bytes() for path in machine.checkpoints.rglob("*") if path.is_file()
        )
        copy = await engine.create(machine.spec("runsc", restore=Restore(name, MEMORY)))
        with dial(copy.address) as peer:
            assert ask(peer)[0] > 0
        for checkpoint in (name, files):
            booted = await engine.create(machine.spec("runsc", restore=Restore(checkpoint, FILES)))
            await introduce(booted.address)
            await engine.forget(checkpoint) if checkpoint == files else None
            assert run(booted.address, "sha256sum -c /root/sum") == "/root/file: OK"
        assert sorted(path.name for path in machine.checkpoints.iterdir()) == [name]
        await engine.close()
        for setting, why in ((str(other), "another key"), ("", "WARREN_CHECKPOINT_KEY_FILE")):
            again = OciEngine(replace(machine.settings, checkpoint_key_file=setting))
            await again.open()
            with pytest.raises(CheckpointUnusable, match=why):
                await again.create(machine.spec("runsc", restore=Restore(name, MEMORY)))
            if not setting:
                await again.checkpoint(source, plain, MEMORY, hold=False)
                folder = machine.checkpoints / plain
                assert any(b"near.sendall" in path.read_bytes() for path in folder.rglob("*.img"))
            await again.close()
        await engine.open()


async def test_files_of_a_crun_sandbox_boot_again(machine: Machine) -> None:
    async with machine.engine(runtime="crun") as engine:
        source, name = await engine.create(machine.spec("crun")), checkpoint_id()
        await introduce(source.address)
        run(source.address, "head -c 5M /dev/urandom > /root/file; sha256sum /root/file > /root/sum; rm -rf /usr/games")
        run(
            source.address,
            "touch /root/his; chown 1000:1000 /root/his; (while :; do date >> /root/log; done) > /dev/null 2>&1 &",
        )
        made = await engine.checkpoint(source.id, name, FILES, hold=False)
        assert 5_000_000 < made.bytes < 30_000_000, "holes are not copied"
        lines = int(run(source.address, "wc -l < /root/log"))
        wait = f"until test $(wc -l < /root/log) -gt {lines}; do sleep 0.1; done; echo more"
        assert run(source.address, wait) == "more", "the source goes on"
        await engine.checkpoint(source.id, checkpoint_id(), FILES, hold=True)
        await engine.destroy(source.id)
        copies = [await engine.create(machine.spec("crun", restore=Restore(name, FILES))) for _ in range(2)]
        await engine.forget(name)
        for copy in copies:
            await introduce(copy.address)
            seen = run(copy.address, "sha256sum -c /root/sum; stat -c %u:%g /root/file /root/his; ls /usr/games")
            lines_seen = seen.splitlines()
            assert lines_seen[:3] == ["/root/file: OK", "0:0", "1000:1000"]
            assert "No such file" in lines_seen[3]
            assert run(copy.address, "rm -rf /usr/lib/python3/dist-packages && mkdir /root/new && echo ok") == "ok"


@pytest.mark.parametrize("runtime", ["runsc", "crun"])
async def test_a_frozen_sandbox_does_nothing_until_it_is_thawed(machine: Machine, runtime: str) -> None:
    async with machine.engine(runtime=runtime) as engine:
        sandbox = await engine.create(machine.spec(runtime))
        await introduce(sandbox.address)
        run(sandbox.address, "(while :; do :; done) > /dev/null 2>&1 & cat /usr/lib/*/*.so* > /dev/null")
        run(
            sandbox.address,
            f"setsid python3 -c '{FILL}' > /root/out 2>&1 & until test -e /root/full; do sleep 0.1; done",
        )
        for _ in range(2):
            await engine.freeze(sandbox.id)
            with pytest.raises(SandboxChanging):
                await engine.checkpoint(sandbox.id, checkpoint_id(), FILES, hold=False)
            before = (await engine.usage(sandbox.id)).cpu_seconds
            assert await engine.reclaim(sandbox.id) >= 0
            assert (await engine.usage(sandbox.id)).cpu_seconds - before < 0.5
            await engine.thaw(sandbox.id)
        run(sandbox.address, "touch /root/check; until test -s /root/out; do sleep 0.1; done")
        assert run(sandbox.address, "cat /root/out") == "whole", "no page of its memory was lost"
        assert run(sandbox.address, "echo awake") == "awake"


async def test_a_server_finds_a_held_sandbox_and_wakes_it(machine: Machine) -> None:
    async with machine.engine() as engine:
        source, name = await counting(machine, engine), checkpoint_id()
        await engine.checkpoint(source, name, MEMORY, hold=True)
        half = machine.checkpoints / f".{checkpoint_id()}"
        shutil.copytree(machine.checkpoints / name, half)
        await engine.close()
        note = machine.run / "runsc" / f"{source}_sandbox:{source}.state"
        note.write_text(note.read_text()[:100])  # as a crash in the middle of runsc's writing leaves it
        await engine.open()
        assert not half.exists()
        assert [checkpoint.id for checkpoint in await engine.checkpoints()] == [name]
        (placement,) = await engine.list()
        await engine.thaw(source)
        with dial(placement.address) as peer:
            first = ask(peer)[0]
            assert goes_on(peer, first)


@pytest.fixture
def failing(machine: Machine, tmp_path: Path) -> Callable[[str, str], str]:
    """A runsc that fails at one of its commands, with these words."""

    def make(verb: str, words: str) -> str:
        path = tmp_path / "runsc"
        path.write_text(
            f"#!/bin/bash\nfor word; do case $word in {verb}) echo {words} >&2; exit 1; esac; done\n"
            f'exec {machine.settings.runsc} "$@"\n'
        )
        path.chmod(0o755)
        return str(path)

    return make


@pytest.mark.parametrize(
    ("verb", "words", "kind_of_error"),
    [
        ("checkpoint", "write: no space left on device", NoSpace),
        ("fscheckpoint", "no reason", EngineFailed),
    ],
)
async def test_a_checkpoint_that_fails_leaves_nothing_and_the_sandbox_goes_on(
    machine: Machine, failing: Callable[[str, str], str], verb: str, words: str, kind_of_error: type[WarrenError]
) -> None:
    async with machine.engine(runsc_path=failing(verb, words)) as engine:
        source = await counting(machine, engine)
        with pytest.raises(kind_of_error):
            await engine.checkpoint(source, checkpoint_id(), MEMORY, hold=True)
        assert list(machine.checkpoints.iterdir()) == []
        (placement,) = await engine.list()
        with dial(placement.address) as peer:
            first = ask(peer)[0]
            assert goes_on(peer, first)


async def test_a_restore_that_fails_leaves_nothing_but_the_checkpoint(
    machine: Machine, failing: Callable[[str, str], str]
) -> None:
    async with machine.engine(runsc_path=failing("restore", "not today")) as engine:
        source, name = await counting(machine, engine), checkpoint_id()
        await engine.checkpoint(source, name, MEMORY, hold=True)
        await engine.destroy(source)
        with pytest.raises(EngineFailed):
            await engine.create(machine.spec("runsc", restore=Restore(name, MEMORY)))
        assert await engine.list() == []
        assert [checkpoint.id for checkpoint in await engine.checkpoints()] == [name]


async def test_a_full_disk_is_known_before_anything_stands_still(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with machine.engine() as engine:
        sandbox = await engine.create(machine.spec("runsc"))
        free = shutil.disk_usage(machine.settings.state_dir).free
        monkeypatch.setattr("warren.model.limits.CHECKPOINT_SPARE_BYTES", free + (1 << 40))
        with pytest.raises(NoSpace, match="MiB are free"):
            await engine.checkpoint(sandbox.id, checkpoint_id(), FILES, hold=False)
        assert list(machine.checkpoints.iterdir()) == []
