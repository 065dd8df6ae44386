"""What builds at work stand on: digests of images, ids of checkpoints. Nobody deletes these."""

from collections import defaultdict
from collections.abc import Set


class Leases:
    def __init__(self) -> None:
        self._held: defaultdict[str, set[str]] = defaultdict(set)

    def hold(self, build_id: str, name: str) -> None:
        """Until `release`."""
        self._held[build_id].add(name)

    def release(self, build_id: str) -> None:
        """Once the store refers to what the build has made, or it has failed."""
        self._held.pop(build_id, None)

    def all(self) -> Set[str]:
        return {name for names in self._held.values() for name in names}
