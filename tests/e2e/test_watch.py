"""Watching directories: by polling (the sync client) and as a stream (the async one)."""

import asyncio
import secrets
from collections.abc import Callable, Iterator

import pytest
from e2b import (
    AsyncSandbox,
    FilesystemEvent,
    FilesystemEventType,
    InvalidArgumentException,
    NotFoundException,
    Sandbox,
    SandboxException,
)
from e2b.sandbox_sync.filesystem.watch_handle import WatchHandle

from tests.e2e.waiting import until

CREATE, WRITE, REMOVE, RENAME, CHMOD = (
    FilesystemEventType.CREATE,
    FilesystemEventType.WRITE,
    FilesystemEventType.REMOVE,
    FilesystemEventType.RENAME,
    FilesystemEventType.CHMOD,
)
EVENTS_WITHIN_S = 20
Facts = list[tuple[str, FilesystemEventType]]


@pytest.fixture
def folder(box: Sandbox) -> Iterator[str]:
    path = f"/home/user/watched-{secrets.token_hex(4)}"
    box.files.make_dir(path)
    yield path
    box.files.remove(path)


def facts(events: list[FilesystemEvent]) -> Facts:
    return [(event.name, event.type) for event in events]


def collect(watch: WatchHandle, last: tuple[str, FilesystemEventType]) -> list[FilesystemEvent]:
    """All events up to `last`."""
    events: list[FilesystemEvent] = []

    def arrived() -> bool:
        events.extend(watch.get_new_events())
        return last in facts(events)

    until(arrived, EVENTS_WITHIN_S, f"{last} is reported")
    return events


@pytest.mark.covers("F11")
def test_a_new_file_is_created_chmodded_and_written(box: Sandbox, folder: str) -> None:
    watch = box.files.watch_dir(folder)
    box.files.write(f"{folder}/new", "x")
    seen = facts(collect(watch, ("new", WRITE)))
    assert seen[:3] == [("new", CREATE), ("new", CHMOD), ("new", WRITE)]
    assert {name for name, _ in seen} == {"new"}
    watch.stop()


@pytest.mark.covers("F11")
def test_overwriting_is_writing(box: Sandbox, folder: str) -> None:
    box.files.write(f"{folder}/file", "one")
    watch = box.files.watch_dir(folder)
    box.files.write(f"{folder}/file", "two")
    seen = facts(collect(watch, ("file", WRITE)))
    assert ("file", CREATE) not in seen
    watch.stop()


@pytest.mark.covers("F11")
def test_commands_inside_cause_events(box: Sandbox, folder: str) -> None:
    watch = box.files.watch_dir(folder)
    box.commands.run("echo x > made; chmod 600 made; mv made moved; rm moved", cwd=folder)
    seen = facts(collect(watch, ("moved", REMOVE)))
    for fact in (("made", CREATE), ("made", WRITE), ("made", CHMOD), ("made", RENAME), ("moved", CREATE)):
        assert fact in seen
    watch.stop()


@pytest.mark.covers("F11")
def test_what_lies_deeper_is_seen_only_when_asked(box: Sandbox, folder: str) -> None:
    box.files.make_dir(f"{folder}/old")
    flat, deep = box.files.watch_dir(folder), box.files.watch_dir(folder, recursive=True)
    box.files.write(f"{folder}/old/file", "x")
    box.files.make_dir(f"{folder}/fresh")
    collect(deep, ("fresh", CREATE))
    box.files.write(f"{folder}/fresh/inside", "x")
    box.files.write(f"{folder}/last", "x")
    assert ("fresh/inside", WRITE) in facts(collect(deep, ("last", WRITE)))
    assert {name for name, _ in facts(collect(flat, ("last", WRITE)))} == {"fresh", "last"}
    flat.stop()
    deep.stop()


@pytest.mark.covers("F04", "F11")
def test_events_carry_the_entry_when_asked(box: Sandbox, folder: str) -> None:
    watch = box.files.watch_dir(folder, include_entry=True)
    box.files.write(f"{folder}/noted", "12345", metadata={"colour": "red"})
    events = collect(watch, ("noted", WRITE))
    entry = next(event.entry for event in events if event.type is WRITE)
    assert entry is not None
    assert (entry.path, entry.size, entry.metadata) == (f"{folder}/noted", 5, {"colour": "red"})
    watch.stop()


@pytest.mark.covers("F11", "C07")
def test_only_directories_that_exist_can_be_watched(box: Sandbox, folder: str) -> None:
    with pytest.raises(NotFoundException):
        box.files.watch_dir(f"{folder}/missing")
    box.files.write(f"{folder}/file", "x")
    with pytest.raises(InvalidArgumentException):
        box.files.watch_dir(f"{folder}/file")


@pytest.mark.covers("F11")
def test_a_stopped_watch_gives_nothing_more(box: Sandbox, folder: str) -> None:
    watch = box.files.watch_dir(folder, allow_network_mounts=True)
    watch.stop()
    with pytest.raises(SandboxException):
        watch.get_new_events()


@pytest.mark.anyio
@pytest.mark.covers("F11")
async def test_the_stream_reports_as_it_happens(box: Sandbox, folder: str) -> None:
    files = (await AsyncSandbox.connect(box.sandbox_id)).files
    arrived: asyncio.Queue[FilesystemEvent] = asyncio.Queue()
    watch = await files.watch_dir(folder, on_event=arrived.put_nowait, recursive=True, include_entry=True)
    await files.write(f"{folder}/deep/file", "x")
    async with asyncio.timeout(EVENTS_WITHIN_S):
        while True:
            event = await arrived.get()
            if (event.name, event.type) == ("deep/file", WRITE):
                assert event.entry is not None
                break
    await watch.stop()


@pytest.mark.anyio
@pytest.mark.covers("F11", "P10")
async def test_a_stream_ends_with_its_sandbox(create: Callable[..., Sandbox]) -> None:
    sandbox = await AsyncSandbox.connect(create().sandbox_id)
    ended: asyncio.Queue[Exception | None] = asyncio.Queue()
    await sandbox.files.watch_dir("/home/user", on_event=lambda _: None, on_exit=ended.put_nowait, timeout=0)
    await sandbox.kill()
    error = await asyncio.wait_for(ended.get(), 30)
    assert error is not None
    assert "was killed or reached its end of life" in str(error)
