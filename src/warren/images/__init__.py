"""OCI images as root file systems: fetched, judged, unpacked in a cell of their own, packed as EROFS."""
