"""What saved memory needs: the very build of the runtime that wrote it, and the processor's features."""

import hashlib
from pathlib import Path

from warren.engine.oci.manifest import Needs
from warren.model.errors import EngineFailed

DIGEST_CHARACTERS = 16


def needs_of(binary: str) -> Needs:
    """Of a build by its content, since builds of one version can differ."""
    try:
        with open(binary, "rb") as file:
            digest = hashlib.file_digest(file, "blake2b").hexdigest()[:DIGEST_CHARACTERS]
    except OSError as error:
        raise EngineFailed(f"cannot read {binary}: {error.strerror}; run `warren doctor`") from None
    return Needs(f"{Path(binary).name}-{digest}", cpu_flags())


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Of the first processor; x86 calls them flags, ARM Features."""
    for line in cpuinfo.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()
