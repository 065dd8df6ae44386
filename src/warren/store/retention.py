"""How long the store remembers what nobody deletes."""

from datetime import timedelta

from warren.model import limits

METRICS_KEPT = timedelta(seconds=limits.METRICS_KEPT_PER_SANDBOX * limits.METRICS_PERIOD_S)
"""Samples older than this, counted from the newest, are dropped. By time and not by count: a count would have to
read the whole day's index of every sandbox at each sample."""

KEY_KEPT = timedelta(seconds=limits.IDEMPOTENCY_TTL_S)
"""An idempotency key is free again after this, and not before its sandbox's row is forgotten (`limits.GONE_KEPT_S`)."""

CREATE_ABANDONED = timedelta(seconds=2 * max(limits.CREATE_DEADLINE_S, limits.CHECKPOINT_DEADLINE_S))
"""A sandbox that is still being created after this has passed its own deadline, whatever it starts from, long ago: its
server is gone, and if that does not come back to say so, the client's retry need not wait a day for it. Any shorter,
and the retry of a create that still reads memory back would make a second sandbox."""
