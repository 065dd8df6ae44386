"""Switches of the machine are set by the first server, and put back by the last."""

from pathlib import Path

import pytest

from warren.engine.oci import switches
from warren.engine.oci.switches import Switch


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`off` and `few` want to be set, `fine` does not."""
    for name, value in (("off", "0"), ("few", "1000"), ("fine", "5000")):
        (tmp_path / name).write_text(f"{value}\n")
    (tmp_path / "run").mkdir()
    names = {"off": 1, "few": 2000, "fine": 2000}
    made = [Switch(str(tmp_path / name), least, f"{name}-was", needed=True) for name, least in names.items()]
    monkeypatch.setattr(switches, "SWITCHES", made)
    return tmp_path


def values(machine: Path) -> list[str]:
    return [(machine / name).read_text().strip() for name in ("off", "few", "fine")]


def test_what_is_less_is_raised_and_put_back(machine: Path) -> None:
    switches.set_all(machine / "run")
    assert values(machine) == ["1", "2000", "5000"]
    switches.set_all(machine / "run")  # by a second server, which finds all as it should be
    switches.restore(machine / "run")
    assert values(machine) == ["0", "1000", "5000"]
    assert list((machine / "run").iterdir()) == []


def test_while_another_server_has_its_bridge_they_stay(machine: Path) -> None:
    switches.set_all(machine / "run")
    (machine / "run" / "lo").mkdir()  # an interface that there is
    switches.restore(machine / "run")
    assert values(machine) == ["1", "2000", "5000"]


def test_after_a_reboot_nothing_is_put_back(machine: Path) -> None:
    (machine / "run" / "few-was").write_text("another-boot 7")
    switches.restore(machine / "run")
    assert values(machine) == ["0", "1000", "5000"]
    assert list((machine / "run").iterdir()) == []
