"""Whatever comes out of a sandbox as its tree of files: it stays in its folder, or is refused."""

import io
import os
from contextlib import suppress
from pathlib import Path

import pytest

from tests.fuzz.corpus import fuzzed
from warren.engine.oci.tree import BadTree, Planter

pytestmark = [
    pytest.mark.threat("B8"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away"),
]


@fuzzed("tree", usual=150)
def test_a_tree_of_files(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    outside = tmp_path_factory.mktemp("outside")
    root = outside / "root"
    (root / "dir").mkdir(parents=True)
    (root / "dir" / "file").write_text("x")
    (root / "link").symlink_to(outside)
    fd = os.open(root, os.O_RDONLY)
    before = len(os.listdir("/proc/self/fd"))
    with suppress(BadTree, OSError):
        Planter(io.BytesIO(data), fd, 1000).plant()
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(fd)
    assert os.listdir(outside) == ["root"]
    for folder, _, files in os.walk(root):
        for name in files:
            found = Path(folder, name).lstat()
            assert found.st_rdev == 0
