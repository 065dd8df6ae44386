"""The use cases that handlers call; put on the application once by `api.app`."""

from dataclasses import dataclass
from pathlib import Path

from fastapi import Request

from warren.contracts.audit import Audit
from warren.control.builds import Builds
from warren.control.garbage import Garbage
from warren.control.keys import Keys
from warren.control.observation import Observations
from warren.control.sandboxes import Sandboxes
from warren.control.secrets import Secrets
from warren.control.snapshots import Snapshots
from warren.control.spares import Spares
from warren.control.templates import Templates
from warren.control.uploads import Uploads
from warren.control.volume_files import VolumeFiles
from warren.control.volumes import Volumes
from warren.telemetry.meters import Meters


@dataclass(frozen=True, slots=True)
class Context:
    """`domain` is what clients build host names of sandboxes from; `root_key` the file with the key of this machine's
    root."""

    sandboxes: Sandboxes
    observations: Observations
    templates: Templates
    builds: Builds
    uploads: Uploads
    snapshots: Snapshots
    keys: Keys
    secrets: Secrets
    volumes: Volumes
    volume_files: VolumeFiles
    spares: Spares
    domain: str
    meters: Meters
    audit: Audit
    garbage: Garbage
    root_key: Path


def context(request: Request) -> Context:
    return request.app.state.context
