"""Judges what the layers of an image would put on a disk, before anything does."""

from warren.images.tar_stream import BadArchive, Entry
from warren.model import limits

FOLDER = "5"
DEVICES = "dev"
"""The image has no say in what lies here, so device nodes in it do no harm: nothing of it is kept."""
WHITEOUT = ".wh."
NAME_BYTES = 255
"""Bytes of one name (NAME_MAX)."""
LINK_BYTES = 4095
"""Bytes of a symbolic link (PATH_MAX)."""


class LayersCheck:
    """Of all layers of one image together; `note` each entry, and `layer` the sizes of each layer."""

    def __init__(self) -> None:
        self.entries = 0
        self.bytes = 0
        self.newest = 0
        """The latest modification time: what is made while unpacking gets this one."""

    def note(self, entry: Entry) -> None:
        """Raises BadArchive for what no image needs, and beyond the limits."""
        self.entries += 1
        self.bytes += entry.size
        self.newest = max(self.newest, entry.mtime)
        if self.entries > limits.IMAGE_FILES:
            raise BadArchive(f"the image has more than {limits.IMAGE_FILES} files (IMAGE_FILES)")
        if self.bytes > limits.IMAGE_BYTES:
            raise BadArchive(f"the image has more than {limits.IMAGE_BYTES} bytes of files (IMAGE_BYTES)")
        parts = _parts(entry.name)
        shown = repr("/".join(parts)[:200])
        if max(entry.uid, entry.gid) > limits.IMAGE_ID_MAX:
            raise BadArchive(
                f"{shown} belongs to {entry.uid}:{entry.gid}, and sandboxes have ids up to {limits.IMAGE_ID_MAX}"
            )
        _judge_kind(entry, parts, shown)
        if entry.kind != FOLDER and not parts:
            raise BadArchive("its root is no folder")
        if parts and parts[-1] in (WHITEOUT, f"{WHITEOUT}.", f"{WHITEOUT}.."):
            raise BadArchive(f"{shown} takes away a folder that it is in")

    def layer(self, compressed: int, unpacked: int) -> None:
        """Whether so much may come out of so little. Called again as it grows."""
        if unpacked > limits.IMAGE_BYTES:
            raise BadArchive(f"it unpacks to more than {limits.IMAGE_BYTES} bytes (IMAGE_BYTES)")
        if unpacked > limits.IMAGE_RATIO_FREE_BYTES and unpacked > compressed * limits.IMAGE_RATIO:
            raise BadArchive(f"it unpacks to more than {limits.IMAGE_RATIO} times its size (IMAGE_RATIO)")


def _judge_kind(entry: Entry, parts: list[str], shown: str) -> None:
    match entry.kind:
        case "0" | "5" | "6":
            pass
        case "1":
            _parts(entry.link)
        case "2":
            if not 0 < len(_bytes(entry.link)) <= LINK_BYTES:
                raise BadArchive(f"{shown} is a symbolic link of {len(_bytes(entry.link))} bytes")
        case "3" | "4":
            if parts[:1] != [DEVICES]:
                raise BadArchive(f"{shown} is a device node; only those below /dev are passed over")
        case kind:
            raise BadArchive(f"{shown} is of a kind that no image needs ({kind!r})")


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    shown = repr(name[:200])
    if ".." in parts:
        raise BadArchive(f"{shown} leads out of its folder")
    if len(parts) > limits.IMAGE_PATH_DEPTH:
        raise BadArchive(f"{shown}… is more than {limits.IMAGE_PATH_DEPTH} folders deep (IMAGE_PATH_DEPTH)")
    if len(_bytes(name)) > limits.IMAGE_PATH_BYTES:
        raise BadArchive(f"{shown}… is longer than {limits.IMAGE_PATH_BYTES} bytes (IMAGE_PATH_BYTES)")
    if any(len(_bytes(part)) > NAME_BYTES for part in parts) or "\0" in name:
        raise BadArchive(f"{shown} is no name that Linux knows")
    return parts


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
