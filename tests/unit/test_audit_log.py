"""The log of a running server: it queues, writes in the background, counts what comes too often."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.unit.waiting import eventually
from warren.audit.chain import Chain
from warren.audit.folder import AuditFolder
from warren.audit.log import AuditLog
from warren.audit.reading import records, verify
from warren.audit.summary import Summary
from warren.control.clock import SystemClock
from warren.control.work import Work
from warren.model import limits
from warren.model.audit import Event, Kind, Outcome
from warren.model.errors import AuditUnavailable

pytestmark = [pytest.mark.threat("F2"), pytest.mark.anyio]
KILL = Event(Kind.SANDBOX_KILL, Outcome.ALLOWED, subject="sandbox:i1")
REFUSED = Event(Kind.AUTH_REFUSED, Outcome.REFUSED, "unauthenticated", details={"address": "127.0.0.1"})


@asynccontextmanager
async def running(folder: AuditFolder, *, must_write: bool = True) -> AsyncGenerator[AuditLog]:
    audit = AuditLog(Chain(folder, datetime.now(UTC)), SystemClock(), must_write=must_write)
    try:
        async with Work() as work:
            work.spawn(audit.run(), "audit")
            yield audit
    finally:
        await audit.close()


async def test_a_record_is_in_the_file_when_it_returns(tmp_path: Path) -> None:
    folder = AuditFolder(tmp_path)
    async with running(folder) as audit:
        await audit.record(KILL)
        assert [body["subject"] for body in records(folder, lambda _: True)] == ["sandbox:i1"]


async def test_no_record_waits_for_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "AUDIT_SYNC_S", 3600.0)
    folder = AuditFolder(tmp_path)
    async with running(folder) as audit:
        for number in range(1, 4):
            await audit.record(KILL)
            assert len(list(records(folder, lambda _: True))) == number


async def test_order_is_kept_and_closing_writes_what_is_left(tmp_path: Path) -> None:
    folder = AuditFolder(tmp_path)
    async with running(folder) as audit:
        for number in range(3000):
            audit.note(Event(Kind.SANDBOX_END, Outcome.OBSERVED, subject=f"sandbox:i{number}"))
    assert [body["subject"] for body in records(folder, lambda _: True)] == [f"sandbox:i{n}" for n in range(3000)]
    assert verify(folder).faults == []


async def test_a_flood_of_refusals_becomes_a_number(tmp_path: Path) -> None:
    folder = AuditFolder(tmp_path)
    async with running(folder) as audit:
        for _ in range(5000):
            audit.sample(REFUSED)
    written = list(records(folder, lambda _: True))
    assert len(written) == limits.AUDIT_SUMMARY_FIRST + 1
    assert written[-1]["details"]["count"] == 5000 - limits.AUDIT_SUMMARY_FIRST


def test_made_up_groups_share_one_number() -> None:
    summary = Summary()
    admitted = sum(
        summary.admits(Event(Kind.TRAFFIC_REFUSED, Outcome.REFUSED, "403", f"sandbox:{n}"), 0.0, each=True)
        for n in range(5000)
    )
    assert admitted == limits.AUDIT_SUMMARY_GROUPS + limits.AUDIT_SUMMARY_FIRST
    told = summary.due(limits.AUDIT_SUMMARY_S)
    assert [event.details["count"] for event in told] == [5000 - admitted]
    assert summary.due(limits.AUDIT_SUMMARY_S * 3) == []


class Disk:
    """Refuses while `full`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        real = Chain.append

        def append(chain: Chain, events: list[tuple[datetime, Event]]) -> None:
            if self.full:
                raise OSError(28, "No space left on device")
            real(chain, events)

        monkeypatch.setattr(Chain, "append", append)


async def test_changes_are_refused_while_the_disk_is_full_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "AUDIT_RETRY_S", 0.01)
    disk, folder = Disk(monkeypatch), AuditFolder(tmp_path)
    async with running(folder) as audit:
        disk.full = True
        audit.note(KILL)
        await eventually(lambda: refuses(audit))
        with pytest.raises(AuditUnavailable, match="No space left"):
            audit.check()
        disk.full = False
        await eventually(lambda: accepts(audit))
    assert [body["subject"] for body in records(folder, lambda _: True)] == ["sandbox:i1"]


async def test_changes_go_on_when_the_operator_wants_it_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "AUDIT_RETRY_S", 0.01)
    monkeypatch.setattr(limits, "AUDIT_RECORD_DEADLINE_S", 0.05)
    disk, folder = Disk(monkeypatch), AuditFolder(tmp_path)
    async with running(folder, must_write=False) as audit:
        disk.full = True
        await audit.record(KILL)  # the deadline passes; the caller gets its answer
        audit.check()
        disk.full = False


async def test_a_full_queue_refuses_changes_and_counts_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "AUDIT_QUEUE", 3)
    folder = AuditFolder(tmp_path)
    async with running(folder) as audit:
        for _ in range(5):
            audit.note(KILL)
        assert await refuses(audit)
        await eventually(lambda: accepts(audit))
    lost = list(records(folder, lambda body: body["kind"] == Kind.AUDIT_LOST))
    assert [body["details"]["count"] for body in lost] == [2]


async def accepts(audit: AuditLog) -> bool:
    return not await refuses(audit)


async def refuses(audit: AuditLog) -> bool:
    try:
        audit.check()
    except AuditUnavailable:
        return True
    return False
