"""What runsc notes about a sandbox, when a crash has left the note torn."""

import json
from pathlib import Path

import pytest

from warren.engine.oci.runsc_saver import KEPT_NOTE, PAUSED, RunscSaver

ID = "i" + "n" * 20
WHOLE = json.dumps({"id": ID, "status": "running"})


@pytest.mark.parametrize(
    ("note", "kept", "status"),
    [
        (WHOLE, None, "running"),
        (WHOLE, WHOLE, "running"),
        (WHOLE[:9], WHOLE, PAUSED),  # torn by a standstill: that writes it once the kernel has stopped
        ("", WHOLE, PAUSED),
        (WHOLE[:9], None, None),  # torn by a start: runsc could not even delete it
        ("", None, None),
        (None, None, None),
    ],
)
def test_a_note_can_be_read_before_a_delete_or_is_gone(
    tmp_path: Path, note: str | None, kept: str | None, status: str | None
) -> None:
    path = tmp_path / f"{ID}_sandbox:{ID}.state"
    for file, content in ((path, note), (tmp_path / KEPT_NOTE, kept)):
        if content is not None:
            file.write_text(content)
    RunscSaver(["runsc"], tmp_path).make_legible(ID, tmp_path)
    found = json.loads(path.read_text())["status"] if path.exists() else None
    assert found == status
