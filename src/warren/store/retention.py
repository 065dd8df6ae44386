"""How long the store remembers what nobody deletes."""

from datetime import timedelta

from warren.model import limits

METRICS_KEPT = timedelta(seconds=limits.METRICS_KEPT_PER_SANDBOX * limits.METRICS_PERIOD_S)
"""Samples older than this, counted from the newest, are dropped. By time and not by count: a count would have to
read the whole day's index of every sandbox at each sample."""

CLAIM_KEPT = timedelta(seconds=limits.IDEMPOTENCY_TTL_S)
"""A settled idempotency key is forgotten after this."""

CLAIM_ABANDONED = timedelta(seconds=2 * limits.CREATE_DEADLINE_S)
"""An unsettled key is free again after this: the create it waits for has passed its own deadline long ago, so the
server that worked on it is gone. Without it, a crash would block the client's retries for a day."""
