"""The index of what builds have left."""

from pathlib import Path

import pytest

from warren.control.build_layers import Layers, Leaving

MIB = 1024 * 1024


def test_what_was_put_is_found_by_the_next_server(tmp_path: Path) -> None:
    Layers(tmp_path / "a").put("key", Leaving.FILES, "c1", MIB)
    layers = Layers(tmp_path / "a")
    assert layers.find("key", Leaving.FILES) == "c1"
    assert layers.find("key", Leaving.IMAGE) is None
    assert layers.find("other", Leaving.FILES) is None


def test_another_in_its_place_is_told(tmp_path: Path) -> None:
    layers = Layers(tmp_path)
    assert layers.put("key", Leaving.FILES, "c1") is None
    assert layers.put("key", Leaving.FILES, "c2") == "c1"
    assert layers.put("key", Leaving.FILES, "c2") is None


def test_checkpoints_are_those_of_files_and_memory(tmp_path: Path) -> None:
    layers = Layers(tmp_path)
    for kind, value in ((Leaving.FILES, "c1"), (Leaving.MEMORY, "c2"), (Leaving.IMAGE, "sha256:x")):
        layers.put("key", kind, value)
    assert layers.checkpoints() == {"c1", "c2"}
    layers.drop("key", Leaving.FILES)
    layers.drop("key", Leaving.FILES)
    assert layers.checkpoints() == {"c2"}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"value": "c1", "bytes": "many"}', b"\xff"])
def test_a_torn_entry_is_none(tmp_path: Path, content: bytes) -> None:
    layers = Layers(tmp_path)
    layers.put("good", Leaving.FILES, "c1")
    (tmp_path / "key.files").write_bytes(content)
    (tmp_path / "junk").write_bytes(b"{}")
    assert layers.find("key", Leaving.FILES) is None
    assert layers.checkpoints() == {"c1"}
    layers.put("key", Leaving.FILES, "c2")
    assert layers.find("key", Leaving.FILES) == "c2"


def test_half_written_entries_are_cleared(tmp_path: Path) -> None:
    (tmp_path / ".key.files").write_text("{")
    Layers(tmp_path)
    assert list(tmp_path.iterdir()) == []
