"""Listing sandboxes."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from e2b import AsyncSandbox, Sandbox, SandboxException, SandboxInfo, SandboxQuery, SandboxState

HOW_MANY = 4


@pytest.fixture(scope="module")
def group(on_runtime: dict[str, Any]) -> Iterator[tuple[str, list[SandboxInfo]]]:
    """A metadata value that no other sandbox has, and the sandboxes that carry it, oldest first."""
    mark = f"group {time.time_ns()} & more"
    made = [
        Sandbox.create(timeout=300, metadata={"group": mark, "index": str(index)}, **on_runtime)
        for index in range(HOW_MANY)
    ]
    yield mark, [sandbox.get_info() for sandbox in made]
    for sandbox in made:
        sandbox.kill()


Group = tuple[str, list[SandboxInfo]]


def ids(rows: list[SandboxInfo]) -> list[str]:
    return [row.sandbox_id for row in rows]


def listed(**options: Any) -> list[str]:
    pages, found = Sandbox.list(**options), []
    while pages.has_next:
        found += ids(pages.next_items())
    return found


@pytest.mark.covers("S12")
def test_newest_come_first_unless_asked_the_other_way(group: Group) -> None:
    mark, rows = group
    query = SandboxQuery(metadata={"group": mark})
    assert listed(query=query) == ids(rows)[::-1]
    assert listed(query=query, order="desc") == ids(rows)[::-1]
    assert listed(query=query, order="asc") == ids(rows)


@pytest.mark.covers("S12")
def test_metadata_filters_are_all_required(group: Group) -> None:
    mark, rows = group
    assert listed(query=SandboxQuery(metadata={"group": mark, "index": "2"})) == [rows[2].sandbox_id]
    assert listed(query=SandboxQuery(metadata={"group": mark, "index": "9"})) == []


@pytest.mark.covers("S12")
def test_state_filters(group: Group) -> None:
    mark, rows = group
    running = SandboxQuery(metadata={"group": mark}, state=[SandboxState.RUNNING])
    assert sorted(listed(query=running)) == sorted(ids(rows))
    paused = SandboxQuery(metadata={"group": mark}, state=[SandboxState.PAUSED])
    assert listed(query=paused) == []
    both = SandboxQuery(metadata={"group": mark}, state=[SandboxState.RUNNING, SandboxState.PAUSED])
    assert len(listed(query=both)) == HOW_MANY


@pytest.mark.covers("S12")
def test_template_filters_by_name_and_by_id(group: Group) -> None:
    mark, rows = group
    for template in ("base", rows[0].template_id):
        assert len(listed(query=SandboxQuery(metadata={"group": mark}, template=template))) == HOW_MANY
    assert listed(query=SandboxQuery(metadata={"group": mark}, template="no-such")) == []


@pytest.mark.covers("S12")
def test_started_after_is_inclusive_to_the_microsecond(group: Group) -> None:
    mark, rows = group
    start = rows[2].started_at
    query = SandboxQuery(metadata={"group": mark}, started_after=start)
    assert listed(query=query, order="asc") == ids(rows)[2:]
    later = SandboxQuery(metadata={"group": mark}, started_after=start + timedelta(microseconds=1))
    assert listed(query=later, order="asc") == ids(rows)[3:]


@pytest.mark.covers("S12")
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_follow_each_other_without_gap_or_overlap(group: Group, order: Any) -> None:
    mark, rows = group
    pages = Sandbox.list(query=SandboxQuery(metadata={"group": mark}), limit=3, order=order)
    first = ids(pages.next_items())
    assert pages.has_next
    rest = Sandbox.list(query=SandboxQuery(metadata={"group": mark}), limit=3, order=order, next_token=pages.next_token)
    second = ids(rest.next_items())
    assert not rest.has_next
    assert (len(first), len(second)) == (3, 1)
    assert first + second == (ids(rows) if order == "asc" else ids(rows)[::-1])


@pytest.mark.covers("S12", "C07")
@pytest.mark.usefixtures("server")
def test_a_made_up_page_token_is_refused() -> None:
    with pytest.raises(SandboxException, match="Invalid next token") as failure:
        Sandbox.list(next_token="nonsense").next_items()
    assert failure.value.status_code == 400


@pytest.mark.covers("S12")
def test_what_was_killed_is_not_listed(create: Callable[..., Sandbox]) -> None:
    mark = str(time.time_ns())
    sandbox = create(metadata={"mark": mark})
    assert listed(query=SandboxQuery(metadata={"mark": mark})) == [sandbox.sandbox_id]
    sandbox.kill()
    assert listed(query=SandboxQuery(metadata={"mark": mark})) == []


@pytest.mark.anyio
@pytest.mark.covers("S12")
async def test_the_async_paginator_sees_the_same(group: Group) -> None:
    mark, rows = group
    pages = AsyncSandbox.list(query=SandboxQuery(metadata={"group": mark}), limit=2, order="asc")
    assert ids(await pages.next_items()) == ids(rows)[:2]
    assert ids(await pages.next_items()) == ids(rows)[2:]
    assert not pages.has_next
