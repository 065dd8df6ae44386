"""Whatever is done to a log without its key shows, and where."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from warren.audit import folder as audit_folder
from warren.audit.chain import Chain
from warren.audit.folder import AuditFolder
from warren.audit.reading import records, verify
from warren.model import audit, limits
from warren.model.audit import EMPTY, Checkpoint, Event, FaultKind, Head, Kind, Outcome
from warren.model.errors import AuditUnavailable, NotFound

pytestmark = pytest.mark.threat("F1")

NOW = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
KEY = b"k" * 32
COUNT = 12

texts = st.text(max_size=300)
events = st.builds(
    Event,
    kind=st.sampled_from(Kind),
    outcome=st.sampled_from(Outcome),
    rule=texts,
    subject=texts,
    project=texts,
    request=texts,
    details=st.dictionaries(texts, texts | st.integers(), max_size=20),
)


def made(count: int, key: bytes = KEY) -> tuple[list[bytes], Head]:
    head, lines = EMPTY, []
    for number in range(count):
        record = audit.chained(Event(Kind.SANDBOX_KILL, Outcome.ALLOWED, subject=f"sandbox:i{number}"), NOW, head, key)
        head = record.head
        lines.append(record.line)
    return lines, head


def faults(lines: list[bytes], head: Head, split: int = 5) -> list[audit.Fault]:
    files = [("one", lines[:split]), ("two", lines[split:])]
    return [found for found in audit.examine(files, Checkpoint(EMPTY, head), KEY) if isinstance(found, audit.Fault)]


@given(st.lists(events, max_size=6))
def test_what_was_written_is_read_back_in_bounds(written: list[Event]) -> None:
    head, lines = EMPTY, []
    for event in written:
        record = audit.chained(event, NOW, head, KEY)
        head, lines = record.head, [*lines, record.line]
        body = audit.read(record.line[:-1], KEY)
        assert body is not None and body["kind"] == event.kind and body["rule"] == event.rule[: limits.AUDIT_TEXT_MAX]
        assert record.line.count(b"\n") == 1 and record.line.isascii()
        assert len(body["details"]) <= limits.AUDIT_DETAILS_MAX
    assert faults(lines, head) == []


@given(st.integers(0, COUNT - 1), st.data())
def test_a_changed_byte_is_found_where_it_is(index: int, data: st.DataObject) -> None:
    lines, head = made(COUNT)
    position = data.draw(st.integers(0, len(lines[index]) - 2))
    value = data.draw(st.integers(0, 255).filter(lambda byte: byte not in (lines[index][position], ord("\n"))))
    lines[index] = lines[index][:position] + bytes([value]) + lines[index][position + 1 :]
    found = faults(lines, head)
    assert (found[0].kind, found[0].file, found[0].line) == (
        FaultKind.CHANGED, "one" if index < 5 else "two", index + 1 if index < 5 else index - 4
    )  # fmt: skip
    assert {one.kind for one in found} <= {FaultKind.CHANGED, FaultKind.CUT}


@given(st.integers(0, COUNT - 2), st.integers(1, COUNT))
def test_removed_lines_are_found_before_the_one_that_follows(first: int, count: int) -> None:
    lines, head = made(COUNT)
    count = min(count, COUNT - 1 - first)
    del lines[first : first + count]
    found = faults(lines, head)
    assert [one.kind for one in found] == [FaultKind.MISSING]
    assert f"before record {first + count + 1}" in found[0].message


@given(st.integers(1, COUNT))
def test_a_cut_end_is_found_by_the_checkpoint(count: int) -> None:
    lines, head = made(COUNT)
    found = faults(lines[:-count], head)
    assert [one.kind for one in found] == [FaultKind.CUT]
    assert found[0].message.startswith(f"the last {count} of {COUNT} records")


@given(st.permutations(range(COUNT)).filter(lambda order: order != list(range(COUNT))))
def test_another_order_is_found(order: list[int]) -> None:
    lines, head = made(COUNT)
    found = faults([lines[index] for index in order], head)
    assert {FaultKind.MISSING, FaultKind.MOVED} & {one.kind for one in found}


@given(st.integers(0, COUNT - 1), st.integers(0, COUNT))
def test_a_line_written_twice_is_found(copied: int, to: int) -> None:
    lines, head = made(COUNT)
    lines.insert(to, lines[copied])
    assert FaultKind.MOVED in {one.kind for one in faults(lines, head)} or faults(lines, head)


@given(st.integers(0, COUNT))
def test_an_added_line_is_found(to: int) -> None:
    lines, head = made(COUNT)
    lines.insert(to, made(to + 1, b"x" * 32)[0][to])
    assert faults(lines, head)[0].kind is FaultKind.CHANGED


def test_a_chain_of_another_key_is_worth_nothing() -> None:
    lines, head = made(COUNT, b"x" * 32)
    assert [one.kind for one in faults(lines, head)] == [FaultKind.CHANGED] * COUNT + [FaultKind.CUT]


def test_two_good_chains_of_one_key_cannot_be_spliced() -> None:
    lines, head = made(COUNT)
    record = audit.chained(Event(Kind.KEY_CREATE, Outcome.ALLOWED), NOW, EMPTY, KEY)
    other = audit.chained(Event(Kind.KEY_REVOKE, Outcome.ALLOWED), NOW, record.head, KEY)
    found = faults([record.line, other.line, *lines[2:]], head)
    assert [(one.kind, one.line) for one in found] == [(FaultKind.MISSING, 3)]


@given(st.binary(max_size=200))
def test_no_bytes_break_the_readers(junk: bytes) -> None:
    assert audit.read(junk, KEY) is None
    assert audit.read_checkpoint(junk, KEY) is None


def test_the_same_fields_in_other_words_are_not_the_same_line() -> None:
    line = made(1)[0][0]
    for changed in (b" " + line, line.replace(b'","', b'", "', 1), b'{"at":"x",' + line[1:]):
        assert audit.read(changed[:-1], KEY) is None


# --- on disk


@pytest.fixture
def here(tmp_path: Path) -> AuditFolder:
    return AuditFolder(tmp_path / "audit")


def append(folder: AuditFolder, count: int, *, sync: bool = True, file_bytes: int = 2000) -> Head:
    with Chain(folder, NOW, file_bytes=file_bytes) as chain:
        for number in range(count):
            chain.append([(NOW, Event(Kind.SANDBOX_KILL, Outcome.ALLOWED, subject=f"sandbox:i{number}"))])
        if sync:
            chain.sync()
        return chain.head


def test_a_log_goes_on_over_restarts_and_files(here: AuditFolder) -> None:
    append(here, 10)
    head = append(here, 10)
    verdict = verify(here)
    assert (verdict.records, verdict.faults, verdict.head) == (20, [], head)
    assert verdict.files > 2
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in here.path.iterdir())
    assert here.path.stat().st_mode & 0o777 == 0o700
    wanted = [body["subject"] for body in records(here, lambda body: body["seq"] > 18)]
    assert wanted == ["sandbox:i8", "sandbox:i9"]


def remove_a_file(folder: AuditFolder) -> None:
    folder.files()[1].unlink()


def swap_files(folder: AuditFolder) -> None:
    one, other = folder.files()[:2]
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def cut_the_end(folder: AuditFolder) -> None:
    last = folder.files()[-1]
    last.write_bytes(b"".join(list(audit_folder.lines(last))[:-1]))


def cut_half_a_line(folder: AuditFolder) -> None:
    last = folder.files()[-1]
    last.write_bytes(last.read_bytes()[:-20])


def drop_the_checkpoint(folder: AuditFolder) -> None:
    folder.checkpoint_file.unlink()


def forge_the_checkpoint(folder: AuditFolder) -> None:
    cut_the_end(folder)
    folder.write_checkpoint(Checkpoint(EMPTY, EMPTY), b"x" * 32)


def remove_everything(folder: AuditFolder) -> None:
    for file in folder.files():
        file.unlink()


@pytest.mark.parametrize(
    ("tamper", "kind"),
    [
        (remove_a_file, FaultKind.MISSING),
        (swap_files, FaultKind.MISSING),
        (cut_the_end, FaultKind.CUT),
        (cut_half_a_line, FaultKind.TORN),
        (drop_the_checkpoint, FaultKind.UNSIGNED),
        (forge_the_checkpoint, FaultKind.UNSIGNED),
        (remove_everything, FaultKind.CUT),
    ],
)
def test_tampering_with_files_is_found(
    here: AuditFolder, tamper: Callable[[AuditFolder], None], kind: FaultKind
) -> None:
    append(here, 20)
    tamper(here)
    assert kind in {fault.kind for fault in verify(here).faults}


@pytest.mark.parametrize("tamper", [cut_the_end, cut_half_a_line, drop_the_checkpoint, remove_everything])
def test_nobody_writes_behind_a_log_that_was_cut(here: AuditFolder, tamper: Callable[[AuditFolder], None]) -> None:
    append(here, 20)
    tamper(here)
    with pytest.raises(AuditUnavailable, match="warren audit verify"):
        Chain(here, NOW)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(torn=st.binary(min_size=1, max_size=400))
def test_a_torn_end_is_written_down_and_never_dropped(tmp_path_factory: pytest.TempPathFactory, torn: bytes) -> None:
    here = AuditFolder(tmp_path_factory.mktemp("torn") / "audit")
    append(here, 5, sync=False)
    with here.files()[-1].open("ab") as file:
        file.write(torn)
    assert verify(here).faults
    append(here, 1)
    verdict = verify(here)
    assert (verdict.faults, verdict.repaired, verdict.records) == ([], 1, 7)
    repair = next(records(here, lambda body: body["kind"] == Kind.AUDIT_REPAIRED))
    assert repair["details"]["bytes"] == len(torn)


def test_what_a_crash_left_unsynced_is_kept(here: AuditFolder) -> None:
    append(here, 3)
    append(here, 4, sync=False)
    append(here, 1)
    assert (verify(here).records, verify(here).faults) == (8, [])


def test_a_failed_write_leaves_no_trace(here: AuditFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    event = (NOW, Event(Kind.SANDBOX_KILL, Outcome.ALLOWED))
    with Chain(here, NOW) as chain:
        chain.append([event])
        with full_disk(monkeypatch), pytest.raises(OSError, match="No space"):
            chain.append([event])
        chain.append([event])
        chain.sync()
    assert (verify(here).records, verify(here).faults) == (2, [])


@contextmanager
def full_disk(patch: pytest.MonkeyPatch) -> Iterator[None]:
    import os

    real = os.pwrite

    def half(fd: int, data: Any, offset: int) -> int:
        if len(data) < 100:
            raise OSError(28, "No space left on device")
        return real(fd, data[: len(data) - 50], offset)

    with patch.context() as inside:
        inside.setattr(os, "pwrite", half)
        yield


def test_the_oldest_files_go_and_the_chain_still_begins_somewhere(
    here: AuditFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "AUDIT_FILES_KEPT", 3)
    append(here, 60)
    verdict = verify(here)
    assert (verdict.faults, verdict.files) == ([], 3)
    assert verdict.base.count + verdict.records == 60
    here.files()[0].unlink()
    assert verify(here).faults[0].kind is FaultKind.MISSING


def test_a_head_that_was_noted_elsewhere_must_be_there(here: AuditFolder) -> None:
    early = append(here, 5)
    append(here, 5)
    assert verify(here, early).faults == []
    assert verify(here, Head(5, "0" * 64)).faults[0].kind is FaultKind.CUT
    assert verify(here, Head(50, early.mac)).faults[0].kind is FaultKind.CUT


def test_one_writer_at_a_time(here: AuditFolder) -> None:
    with Chain(here, NOW), pytest.raises(AuditUnavailable, match="another Warren"):
        Chain(here, NOW)
    Chain(here, NOW).close()


def test_a_folder_without_a_log_says_so(here: AuditFolder) -> None:
    with pytest.raises(NotFound, match="cannot find an audit log"):
        verify(here)
