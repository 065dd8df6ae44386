"""Each migration names the one before it in `down_revision`."""
