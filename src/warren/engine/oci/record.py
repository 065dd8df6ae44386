"""What the engine remembers of each sandbox, on disk, so that a new server finds it again."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from warren import durable
from warren.engine.oci.process import ProcessId
from warren.model.sandbox import Resources

FILE = "placement.json"
VERSION = 1
"""Of the file's form; a server that does not know it treats the sandbox as a leftover."""


@dataclass(frozen=True, slots=True)
class Record:
    """Written before the runtime starts with `pid` 0, and again when it runs.

    `image` is the digest of its template, `volumes` are the ids of those that it has. They, and `pids`, the limit, are
    not known of what an earlier version started.
    """

    id: str
    runtime: str
    slot: int
    address: str
    cpu_count: int
    memory_mb: int
    disk_mb: int
    dns_servers: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    image: str = ""
    volumes: tuple[str, ...] = ()
    pids: int = 0
    pid: int = 0
    started: int = 0
    version: int = VERSION

    @property
    def resources(self) -> Resources:
        return Resources(self.cpu_count, self.memory_mb, self.disk_mb)

    @property
    def process(self) -> ProcessId | None:
        return ProcessId(self.pid, self.started) if self.pid else None

    def running_as(self, process: ProcessId) -> "Record":
        return replace(self, pid=process.pid, started=process.started)

    def write(self, folder: Path) -> None:
        """In one step: a crash leaves the old file or the new one."""
        durable.write(folder / FILE, json.dumps(asdict(self)), lasting=False)

    @classmethod
    def read(cls, folder: Path) -> "Record | None":
        """None for a folder that holds no record this version understands."""
        try:
            fields = json.loads((folder / FILE).read_text())
            if fields["version"] != VERSION:
                return None
            for name in ("dns_servers", "allow", "deny", "volumes"):
                fields[name] = tuple(fields.get(name, ()))
            return cls(**fields)
        except (OSError, ValueError, KeyError, TypeError):
            return None
