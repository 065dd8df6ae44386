"""A kernel that takes long to go on: its command is never cut off and never begun twice."""

import json
from pathlib import Path

import pytest

from warren.engine.oci.resuming import AT_WORK, SAID
from warren.engine.oci.runsc_saver import PAUSED, RunscSaver
from warren.model.errors import EngineFailed

ID = "i" + "a" * 20
RUNSC = """#!/bin/sh
echo "$1" >> {folder}/calls
while ! [ -e {folder}/may-go-on ]; do sleep 0.02; done
{end}
"""


@pytest.fixture
def note(tmp_path: Path) -> Path:
    path = tmp_path / f"{ID}_sandbox:{ID}.state"
    path.write_text(json.dumps({"status": PAUSED}))
    return path


def saver(folder: Path, end: str) -> RunscSaver:
    binary = folder / "runsc"
    binary.write_text(RUNSC.format(folder=folder, end=end))
    binary.chmod(0o755)
    return RunscSaver([str(binary)], folder)


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().split()


def test_who_comes_next_waits_for_the_one_that_is_at_work(
    tmp_path: Path, note: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = saver(tmp_path, f"""echo '{{"status": "running"}}' > '{note}'""")
    with monkeypatch.context() as patch:
        patch.setattr("warren.model.limits.CHECKPOINT_DEADLINE_S", 0.2)
        for _ in range(2):
            with pytest.raises(EngineFailed, match="did not go on within"):
                ends.wake(ID, tmp_path)
        with pytest.raises(EngineFailed, match="did not go on within"):
            ends.halt(ID, tmp_path)
    (tmp_path / "may-go-on").touch()
    ends.wake(ID, tmp_path)
    ends.wake(ID, tmp_path)
    assert calls(tmp_path) == ["resume"]
    assert not (tmp_path / AT_WORK).exists()
    assert not (tmp_path / SAID).exists()


def test_one_that_failed_is_repeated(tmp_path: Path, note: Path) -> None:
    fails = saver(tmp_path, "echo not today >&2; exit 1")
    (tmp_path / "may-go-on").touch()
    for _ in range(2):
        with pytest.raises(EngineFailed, match=f"cannot wake sandbox {ID}: not today$"):
            fails.wake(ID, tmp_path)
    assert calls(tmp_path) == ["resume", "resume"]
    assert note.exists()
