"""Links in an image where /dev, /proc and /sys belong: the host follows none, whatever becomes of the start."""

import subprocess
from pathlib import Path

import pytest

from tests.security.lab import SMALL, engine_of_ones_own, settings_of_ones_own
from warren.contracts.engine import SandboxSpec
from warren.model.errors import EngineFailed
from warren.model.policy import EgressPolicy
from warren.model.template import TemplateImage

pytestmark = [pytest.mark.root, pytest.mark.anyio, pytest.mark.timeout(240)]

PLACES = ("dev", "proc", "sys")


def image_of_links(folder: Path, victim: Path) -> Path:
    """A root file system whose own places lead to a folder of the host, if somebody follows them there."""
    tree = folder / "tree"
    for name in (".warren", "tmp", "etc", *(f"kept{victim}/{place}" for place in PLACES)):
        (tree / name).mkdir(parents=True)
    for place in PLACES:
        (victim / place).mkdir(parents=True)
        (tree / place).symlink_to(victim / place)
    image = folder / "links.erofs"
    made = ["mkfs.erofs", "--quiet", "-Enoinline_data", str(image), str(tree)]
    subprocess.run(made, check=True, capture_output=True, timeout=60)
    return image


@pytest.mark.threat("A6")
async def test_links_of_an_image_are_not_followed_on_the_host(runtime: str, probes: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    image = image_of_links(tmp_path, victim)
    async with engine_of_ones_own(settings_of_ones_own(runtime, tmp_path / "state", probes)) as engine:
        spec = SandboxSpec(
            "i" + "0" * 20, runtime, TemplateImage("sha256:unchecked", str(image)), "box", SMALL, EgressPolicy()
        )
        try:
            await engine.create(spec)
        except EngineFailed:
            assert await engine.list() == []  # refused is as good as mounted inside
        assert str(victim) not in Path("/proc/self/mounts").read_text()
        assert sorted(str(path.relative_to(victim)) for path in victim.rglob("*")) == sorted(PLACES)
