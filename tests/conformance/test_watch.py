"""Contract 3.4, 6.2.3: what a watcher hears, polled and streamed."""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING

import pytest
from e2b import (
    AsyncSandbox,
    FileNotFoundException,
    FilesystemEvent,
    FilesystemEventType,
    InvalidArgumentException,
    NotFoundException,
    Sandbox,
)

from .processes import eventually
from .wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from e2b import WatchHandle

    from .wire import Frame

SERVICE = "filesystem.Filesystem"
WATCH = f"{SERVICE}/WatchDir"
LAST = ".last"  # a folder that a test makes to know that all before it has been said
KINDS = {
    FilesystemEventType.CREATE: "create",
    FilesystemEventType.WRITE: "write",
    FilesystemEventType.REMOVE: "remove",
    FilesystemEventType.RENAME: "rename",
    FilesystemEventType.CHMOD: "chmod",
}


def heard(handle: WatchHandle, folder: Path) -> list[FilesystemEvent]:
    """Everything that happened until now."""
    (folder / LAST).mkdir()
    events: list[FilesystemEvent] = []

    def complete() -> bool:
        events.extend(handle.get_new_events())
        return any(event.name == LAST for event in events)

    eventually(complete, "the last event arrived")
    handle.stop()
    return [event for event in events if event.name != LAST]


def brief(events: list[FilesystemEvent]) -> list[tuple[str, str]]:
    """Names and kinds, with repeated writes as one: the kernel may split them at will."""
    found: list[tuple[str, str]] = []
    for event in events:
        one = (event.name, KINDS[event.type])
        if not (found and found[-1] == one and one[1] == "write"):
            found.append(one)
    return found


def test_files_made_by_commands_are_heard(sandbox: Sandbox, folder: Path) -> None:
    handle = sandbox.files.watch_dir(str(folder))
    (folder / "f").touch()
    (folder / "f").write_text("x")
    (folder / "f").chmod(0o600)
    (folder / "f").unlink()
    assert brief(heard(handle, folder)) == [
        ("f", "create"),
        ("f", "write"),
        ("f", "chmod"),
        ("f", "remove"),
    ]


def test_new_upload_is_create_chmod_write(sandbox: Sandbox, folder: Path) -> None:
    handle = sandbox.files.watch_dir(str(folder))
    sandbox.files.write(f"{folder}/new", "content")
    assert brief(heard(handle, folder)) == [("new", "create"), ("new", "chmod"), ("new", "write")]


def test_overwriting_upload_is_a_write_and_nothing_hidden_shows(sandbox: Sandbox, folder: Path) -> None:
    (folder / "old").write_text("old")
    handle = sandbox.files.watch_dir(str(folder))
    sandbox.files.write(f"{folder}/old", "new")
    events = brief(heard(handle, folder))
    assert {name for name, _ in events} == {"old"}
    assert ("old", "write") in events
    assert {kind for _, kind in events} <= {"write", "chmod"}


def test_failed_upload_is_not_heard(sandbox: Sandbox, wire: Wire, folder: Path) -> None:
    handle = sandbox.files.watch_dir(str(folder))
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nhalf of it'
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    assert wire.files("POST", params={"path": f"{folder}/f"}, content=body, headers=headers).status_code >= 400
    assert brief(heard(handle, folder)) == []


def test_rename_is_rename_of_the_old_and_create_of_the_new(sandbox: Sandbox, folder: Path) -> None:
    (folder / "a").touch()
    handle = sandbox.files.watch_dir(str(folder))
    sandbox.files.rename(f"{folder}/a", f"{folder}/b")
    assert sorted(brief(heard(handle, folder))) == [("a", "rename"), ("b", "create")]


def test_files_moved_out_and_in(sandbox: Sandbox, folder: Path) -> None:
    inner = folder / "watched"
    inner.mkdir()
    (inner / "leaves").touch()
    (folder / "comes").touch()
    handle = sandbox.files.watch_dir(str(inner))
    (inner / "leaves").rename(folder / "left")
    (folder / "comes").rename(inner / "came")
    assert brief(heard(handle, inner)) == [("leaves", "rename"), ("came", "create")]


def test_without_recursion_only_the_folder_itself_is_heard(sandbox: Sandbox, folder: Path) -> None:
    (folder / "sub").mkdir()
    handle = sandbox.files.watch_dir(str(folder))
    (folder / "sub/f").touch()
    assert [event for event in heard(handle, folder) if "/" in event.name] == []


def test_recursive_covers_what_is_there_and_what_comes(sandbox: Sandbox, folder: Path) -> None:
    (folder / "old").mkdir()
    handle = sandbox.files.watch_dir(str(folder), recursive=True)
    (folder / "old/f").touch()
    sandbox.files.make_dir(f"{folder}/new/deep")
    sandbox.files.write(f"{folder}/new/deep/g", "x")
    events = brief(heard(handle, folder))
    assert ("old/f", "create") in events
    assert ("new", "create") in events
    assert ("new/deep", "create") in events
    assert ("new/deep/g", "create") in events
    assert ("new/deep/g", "write") in events


def test_recursive_hears_files_made_at_once_in_new_folders(sandbox: Sandbox, folder: Path) -> None:
    """The folder exists before anybody can watch it: what came first must be told all the same."""
    handle = sandbox.files.watch_dir(str(folder), recursive=True)
    for i in range(20):
        (folder / f"d{i}/e").mkdir(parents=True)
        (folder / f"d{i}/e/f").write_text("x")
    names = {event.name for event in heard(handle, folder) if event.type == FilesystemEventType.CREATE}
    assert {f"d{i}/e/f" for i in range(20)} <= names


def test_recursive_follows_a_renamed_folder(sandbox: Sandbox, folder: Path) -> None:
    (folder / "a").mkdir()
    handle = sandbox.files.watch_dir(str(folder), recursive=True)
    (folder / "a").rename(folder / "b")
    names: list[str] = []

    def renamed() -> bool:
        names.extend(event.name for event in handle.get_new_events())
        return "b" in names

    eventually(renamed, "the rename was heard")
    (folder / "b/f").touch()
    events = [event.name for event in heard(handle, folder)]
    assert "b/f" in events
    assert "a/f" not in events


def test_entry_comes_with_create_write_chmod_when_asked(sandbox: Sandbox, folder: Path) -> None:
    (folder / "gone").touch()
    handle = sandbox.files.watch_dir(str(folder), include_entry=True)
    (folder / "gone").unlink()
    sandbox.files.write(f"{folder}/f", "12345", metadata={"color": "red"})
    events = heard(handle, folder)
    for event in events:
        if event.type is FilesystemEventType.REMOVE:
            assert event.entry is None
        else:
            assert event.entry is not None
            assert event.entry.path == f"{folder}/f"
    last = next(event.entry for event in reversed(events) if event.name == "f")
    assert last is not None
    assert (last.size, last.metadata) == (5, {"color": "red"})


def test_entry_is_absent_unless_asked_for(sandbox: Sandbox, folder: Path) -> None:
    handle = sandbox.files.watch_dir(str(folder))
    (folder / "f").touch()
    assert [event.entry for event in heard(handle, folder) if event.entry] == []


def test_missing_and_file_are_refused(wire: Wire, sandbox: Sandbox, folder: Path) -> None:
    (folder / "f").touch()
    for method in ("CreateWatcher",):
        assert wire.refused(f"{SERVICE}/{method}", {"path": f"{folder}/none"})[:2] == (404, "not_found")
        assert wire.refused(f"{SERVICE}/{method}", {"path": f"{folder}/f"})[:2] == (400, "invalid_argument")
    for path, code in ((f"{folder}/none", "not_found"), (f"{folder}/f", "invalid_argument")):
        with wire.stream(WATCH, {"path": path}) as arriving:
            (end,) = list(arriving)
        assert end.json["error"]["code"] == code
    with pytest.raises(FileNotFoundException):
        sandbox.files.watch_dir(f"{folder}/none")
    with pytest.raises(InvalidArgumentException):
        sandbox.files.watch_dir(f"{folder}/f")


def test_watcher_ids_are_w_and_twenty_characters(wire: Wire, folder: Path) -> None:
    watcher = wire.ok(f"{SERVICE}/CreateWatcher", {"path": str(folder)})["watcherId"]
    assert re.fullmatch(r"w[a-z0-9]{20}", watcher)
    wire.ok(f"{SERVICE}/RemoveWatcher", {"watcherId": watcher})
    for method in ("GetWatcherEvents", "RemoveWatcher"):
        assert wire.refused(f"{SERVICE}/{method}", {"watcherId": watcher})[:2] == (404, "not_found")


def test_polling_drains(sandbox: Sandbox, folder: Path) -> None:
    handle = sandbox.files.watch_dir(str(folder))
    (folder / "f").mkdir()
    eventually(handle.get_new_events, "the event arrived")
    assert handle.get_new_events() == []
    handle.stop()
    with pytest.raises(NotFoundException):
        sandbox.files.watch_dir(f"{folder}/none")


def test_stream_begins_with_start_and_gives_json_events(wire: Wire, folder: Path) -> None:
    with wire.stream(WATCH, {"path": str(folder)}) as arriving:
        assert next(arriving).json == {"start": {}}
        (folder / "d").mkdir()
        assert next(arriving).json == {"filesystem": {"name": "d", "type": "EVENT_TYPE_CREATE"}}


def test_stream_keepalive_comes_after_the_idle_seconds(wire: Wire, folder: Path) -> None:
    with wire.stream(WATCH, {"path": str(folder)}, Keepalive_Ping_Interval="1") as arriving:
        assert [next(arriving).json, next(arriving).json] == [{"start": {}}, {"keepalive": {}}]


def test_stream_deadline_ends_it(wire: Wire, folder: Path) -> None:
    with wire.stream(WATCH, {"path": str(folder)}, Connect_Timeout_Ms="300") as arriving:
        frames = list(arriving)
    assert frames[-1].json["error"]["code"] == "deadline_exceeded"


def test_stream_that_is_left_gives_its_watch_back(wire: Wire, folder: Path) -> None:
    wire.ok(f"{SERVICE}/Stat", {"path": "/"})
    before = wire.daemon.descriptors()
    for _ in range(30):
        with wire.stream(WATCH, {"path": str(folder)}) as arriving:
            next(arriving)
    eventually(lambda: wire.daemon.descriptors() <= before + 3, "inotify descriptors are closed")


def test_removed_folder_is_heard_and_does_no_harm(wire: Wire, sandbox: Sandbox, folder: Path) -> None:
    inner = folder / "gone"
    inner.mkdir()
    with wire.stream(WATCH, {"path": str(inner)}) as arriving:
        next(arriving)
        inner.rmdir()
        assert first_event(arriving) in ("EVENT_TYPE_REMOVE", None)
    assert sandbox.files.exists(str(folder))


def first_event(arriving: Iterator[Frame]) -> str | None:
    """The kind of the next event, or None when the stream ends instead."""
    frame = next(arriving)
    return None if frame.ends else frame.json["filesystem"]["type"]


def test_a_burst_of_ten_thousand_events_is_heard(sandbox: Sandbox, folder: Path) -> None:
    handle = sandbox.files.watch_dir(str(folder))
    for i in range(5_000):
        os.mkdir(folder / f"{i}")
    events = brief(heard(handle, folder))
    assert len({name for name, kind in events if kind == "create"}) == 5_000


def test_watchers_beyond_the_limit_are_refused_with_a_reason(fresh_wire: Wire) -> None:
    path = str(fresh_wire.daemon.folder / "home")
    answers: list[tuple[int, str | None]] = []
    while len(answers) < 1_200 and (not answers or answers[-1][0] == 200):
        response = fresh_wire.call(f"{SERVICE}/CreateWatcher", {"path": path})
        answers.append((response.status_code, response.json().get("code")))
    assert answers[-1] == (429, "resource_exhausted")
    assert len(answers) > 100
    assert fresh_wire.ok(f"{SERVICE}/Stat", {"path": "/"})


@pytest.mark.anyio
async def test_async_watch_calls_back(async_sandbox: Callable[[], AsyncSandbox], folder: Path) -> None:
    files = async_sandbox().files
    arrived: asyncio.Queue[FilesystemEvent] = asyncio.Queue()
    exits: list[Exception | None] = []
    handle = await files.watch_dir(str(folder), on_event=arrived.put, on_exit=exits.append, include_entry=True)
    await files.write(f"{folder}/f", "x")
    async with asyncio.timeout(10):
        kinds = [(await arrived.get()).type for _ in range(3)]
    await handle.stop()
    assert kinds == [FilesystemEventType.CREATE, FilesystemEventType.CHMOD, FilesystemEventType.WRITE]
    assert exits == [None]
