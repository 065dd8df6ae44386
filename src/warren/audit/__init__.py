"""The audit log on disk: written in the background, checked from outside."""
