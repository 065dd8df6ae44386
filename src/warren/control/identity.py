"""Who this server is, to the others that share its database: a file of the state folder, made at first start."""

import os
import uuid
from pathlib import Path


def load_server_id(state_dir: Path) -> str:
    """The same for the life of the state folder. A copied folder needs its `server-id` removed: two servers with one
    identity would end each other's sandboxes."""
    path = state_dir / "server-id"
    if not path.exists():
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        partial.write_text(f"{uuid.uuid4()}\n")
        partial.rename(path)
    return path.read_text().strip()
