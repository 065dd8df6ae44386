"""Ranges of host uids: no two sandboxes alive share one, whichever server of the machine started them."""

import itertools
import multiprocessing
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from warren.engine.oci import uids
from warren.engine.oci.slot import Slot, SlotPlan
from warren.engine.oci.uids import BLOCK_SLOTS, BLOCKS, UID_BASE, UID_END, UIDS_PER_SLOT, UidRanges
from warren.model.errors import EngineFailed

PLAN = SlotPlan(IPv4Network("198.18.0.0/16"), "one", Path("/run/warren/one/netns"), 1000)


def slots(*indexes: int) -> list[Slot]:
    return [PLAN.slot(index) for index in indexes]


def server(root: Path, bridge: str) -> UidRanges:
    (root / bridge).mkdir(exist_ok=True)
    return UidRanges(root, bridge)


def test_the_slots_of_a_server_have_ranges_of_their_own(tmp_path: Path) -> None:
    one = server(tmp_path, "one")
    bases = sorted(one.base(slot) for slot in slots(*range(1000)))
    assert bases[0] == UID_BASE
    assert all(after - before >= UIDS_PER_SLOT for before, after in itertools.pairwise(bases))
    assert bases[-1] + UIDS_PER_SLOT <= UID_END


def test_slots_of_the_same_number_on_two_servers_differ(tmp_path: Path) -> None:
    one, two = server(tmp_path, "one"), server(tmp_path, "two")
    everything = [ranges.base(slot) for slot in slots(*range(0, 1000, 7)) for ranges in (one, two)]
    assert len(set(everything)) == len(everything)


def test_a_restarted_server_finds_its_ranges_again(tmp_path: Path) -> None:
    one, two = server(tmp_path, "one"), server(tmp_path, "two")
    before = [(one.base(slot), two.base(slot)) for slot in slots(3, 300, 70)]
    again = UidRanges(tmp_path, "one"), UidRanges(tmp_path, "two")
    assert [(again[0].base(slot), again[1].base(slot)) for slot in slots(3, 300, 70)] == before


def test_what_is_given_back_is_given_out_again(tmp_path: Path) -> None:
    one, two = server(tmp_path, "one"), server(tmp_path, "two")
    (first,) = slots(0)
    had, others = one.base(first), two.base(first)
    one.release()
    one.release()
    assert server(tmp_path, "three").base(first) == had
    assert UidRanges(tmp_path, "two").base(first) == others


def test_a_crashed_server_keeps_its_ranges_until_its_run_folder_goes(tmp_path: Path) -> None:
    (first,) = slots(0)
    had = server(tmp_path, "one").base(first)
    two = server(tmp_path, "two")
    assert two.base(first) != had
    (tmp_path / "one").rmdir()
    assert server(tmp_path, "three").base(first) == had


def test_when_all_are_taken_the_holders_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uids, "BLOCKS", 2)
    one = server(tmp_path, "one")
    for slot in slots(0, BLOCK_SLOTS):
        one.base(slot)
    with pytest.raises(EngineFailed, match="one"):
        server(tmp_path, "two").base(PLAN.slot(0))


def claim(root: Path, bridge: str) -> int:
    return UidRanges(root, bridge).base(PLAN.slot(0))


def test_servers_that_start_at_the_same_time_get_different_ranges(tmp_path: Path) -> None:
    names = [f"s{number}" for number in range(40)]
    for name in names:
        (tmp_path / name).mkdir()
    with multiprocessing.get_context("fork").Pool(4) as pool:
        bases = pool.starmap(claim, [(tmp_path, name) for name in names], chunksize=1)
    assert len(set(bases)) == len(names)
    assert len(names) < BLOCKS
