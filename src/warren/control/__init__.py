"""Use cases, one file per noun. The only writer of desired state."""
