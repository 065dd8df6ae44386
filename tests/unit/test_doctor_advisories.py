"""Known holes by version: release candidates, series with fixes of their own, and what the finding says."""

from dataclasses import replace

import pytest

from tests.unit.test_doctor import GOOD, finding
from warren.doctor.advisories import CRUN, RUNC, RUNSC, Advisory, is_open

ALL = {advisory.id: advisory for advisory in (*CRUN, *RUNC, *RUNSC)}


@pytest.mark.parametrize(
    ("advisory", "version", "open_"),
    [
        ("CVE-2019-5736", "1.0.0-rc6", True),
        ("CVE-2019-5736", "1.0.0-rc7", False),
        ("CVE-2019-5736", "1.0.0-rc10", False),
        ("CVE-2019-5736", "1.0.0", False),
        ("CVE-2024-21626", "1.0.0-rc92", False),
        ("CVE-2024-21626", "1.0.0-rc93", True),
        ("CVE-2024-21626", "1.1.5", True),
        ("CVE-2024-21626", "1.1.12", False),
        ("CVE-2025-31133", "1.1.15", True),
        ("CVE-2025-31133", "1.2.7", True),
        ("CVE-2025-31133", "1.2.8", False),
        ("CVE-2025-31133", "1.3.2", True),
        ("CVE-2025-31133", "1.3.3", False),
        ("CVE-2025-31133", "1.4.0-rc.2", True),
        ("CVE-2025-31133", "1.4.0-rc.3", False),
        ("CVE-2025-31133", "1.5.0", False),
        ("CVE-2026-84042", "1.28", False),
        ("CVE-2026-84042", "1.29.1", True),
        ("CVE-2026-84042", "1.30", False),
        ("CVE-2025-24965", "1.9", True),
        ("CVE-2025-24965", "1.19.1", True),
        ("CVE-2025-24965", "1.20", False),
        ("CVE-2018-16359", "20180801", True),
        ("CVE-2018-16359", "20260905", False),
    ],
)
def test_a_version_is_judged_by_its_own_series(advisory: str, version: str, open_: bool) -> None:
    assert is_open(ALL[advisory], version) is open_


def test_holes_that_do_not_reach_are_named_and_nothing_has_to_be_done() -> None:
    found = finding(replace(GOOD, outputs={**GOOD.outputs, "dpkg-query": "1.8.1-1+deb12u1"}), "crun advisories")
    assert found.ok
    assert found.found is not None
    assert "1.8.1, package 1.8.1-1+deb12u1: CVE-2025-24965 (fixed in 1.20)" in found.found
    assert "CVE-2025-24965: the krun handler is never asked for" in found.why


def test_a_hole_that_reaches_asks_for_a_newer_version() -> None:
    found = finding(replace(GOOD, outputs={**GOOD.outputs, "crun": "crun version 0.10.4"}), "crun advisories")
    assert not found.ok
    assert "CVE-2019-18837" in found.why
    assert "install a newer crun" in found.remedy


@pytest.mark.parametrize(
    ("outputs", "name", "told"),
    [
        ({}, "runc advisories", "not installed"),
        ({"runc": "runc version 1.6.0\ncommit: x"}, "runc advisories", "1.6.0: none known"),
        ({"runc": "runc version 1.1.5+ds1\ncommit: x"}, "runc advisories", "CVE-2024-21626"),
        ({"crun": "crun version 1.30\ncommit: x"}, "crun advisories", "1.30: none known"),
        ({"runsc": "runsc version release-20261116.0\n"}, "runsc advisories", "20261116: none known"),
        ({"runsc": "runsc version release-20260905.0\n"}, "runsc advisories", "CVE-2026-96812"),
    ],
)
def test_each_runtime_is_looked_up(outputs: dict[str, str], name: str, told: str) -> None:
    assert told in (finding(replace(GOOD, outputs={**GOOD.outputs, **outputs}), name).found or "")


def test_every_advisory_has_a_source_and_says_what_it_means() -> None:
    assert all(isinstance(each, Advisory) and each.source.endswith(each.id) and each.meaning for each in ALL.values())
