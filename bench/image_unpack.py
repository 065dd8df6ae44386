"""A large image through the server's image source, beside `umoci unpack` of the same layers alone."""

import asyncio
import random
import subprocess
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.oci_image import Image, archive, entry
from warren.images.registries import parse_registries
from warren.images.source import OciImages

LAYERS, FOLDERS, FILES = 4, 100, 60
MEAN_BYTES = 42_000
"""Of a file, so that all of them are about 1 GB."""
WORDS = 5000
TIMES = 3
BEGIN = "checking"
"""The word with which the source says that the image is there, and its own work begins."""


@dataclass(frozen=True)
class Unpacked:
    """The best of several, because the machine is shared; taken in turns, so that both meet the same noise."""

    ours_s: float
    umoci_s: float
    mb: float

    @property
    def ratio(self) -> float:
        return self.ours_s / self.umoci_s


def measure(cache: Path) -> Unpacked:
    """The image is made once and kept in `cache`."""
    layout = cache / f"image-{LAYERS}x{FOLDERS}x{FILES}"
    if not layout.exists():
        draft = layout.with_suffix(".draft")
        subprocess.run(["rm", "-rf", draft], check=True)
        _image().layout(draft).rename(layout)
    ours: list[float] = []
    theirs: list[float] = []
    with tempfile.TemporaryDirectory(dir=cache) as name:
        folder = Path(name)
        packed = folder / "image.tar"
        with tarfile.open(packed, "w") as made:
            made.add(layout, ".")
        for number in range(TIMES):
            target = folder / f"umoci-{number}"
            began = time.perf_counter()
            subprocess.run(["umoci", "unpack", f"--image={layout}:image", target], check=True, capture_output=True)
            theirs.append(time.perf_counter() - began)
            subprocess.run(["rm", "-rf", target], check=True)
            ours.append(asyncio.run(_take_in(packed, folder / f"ours-{number}")))
    size = sum(path.stat().st_size for path in layout.rglob("*") if path.is_file())
    return Unpacked(min(ours), min(theirs), size / 1e6)


async def _take_in(packed: Path, folder: Path) -> float:
    """Seconds from where the layers are there to where the image is."""
    images = OciImages(folder, parse_registries((), (), ()), adopt=lambda *_: None, use=lambda _: False)
    images.open()
    began: list[float] = []

    def say(_level: object, text: str, _step: object) -> None:
        if text.startswith(BEGIN):
            began.append(time.perf_counter())

    await images.take_in(packed, say)
    return time.perf_counter() - began[0]


def _image() -> Image:
    """Text-like files, always the same: gzip makes half of them."""
    chance = random.Random(1)
    words = [chance.randbytes(chance.randint(3, 9)).hex().encode() for _ in range(WORDS)]
    return Image([_layer(number, chance, words) for number in range(LAYERS)])


def _layer(number: int, chance: random.Random, words: list[bytes]) -> bytes:
    entries = [entry(f"layer-{number}")]
    for folder in range(FOLDERS):
        entries.append(entry(f"layer-{number}/{folder}"))
        for file in range(FILES):
            size = int(chance.expovariate(1 / MEAN_BYTES))
            entries.append(entry(f"layer-{number}/{folder}/{file}", b" ".join(chance.choices(words, k=size // 13 + 1))))
    return archive(*entries)
