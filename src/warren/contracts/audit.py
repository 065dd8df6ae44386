"""Audit: where decisions that matter are written down.

Whoever changes something for a caller asks `check` before, does it, and awaits `record` before the answer goes out.
What happens by itself (a deadline, a death) is `note`d. What an attacker can cause as often as he likes (refusals) is
`sample`d: the first of a minute one by one, the rest as a number, so that nobody fills a disk with it.
"""

from typing import Protocol

from warren.model.audit import Event


class Audit(Protocol):
    """No method blocks the loop; only `check` raises."""

    def check(self) -> None:
        """Raises AuditUnavailable while decisions cannot be written down and the policy is to refuse changes then."""
        ...

    async def record(self, event: Event) -> None:
        """Return when the line is written (a crash of the server does not lose it), or after a deadline."""
        ...

    def note(self, event: Event) -> None:
        """Write it soon, in order. One that finds the queue full is counted, and the count is written instead."""
        ...

    def sample(self, event: Event, *, each: bool = False) -> None:
        """Write it, or count it when many of its kind, rule and project came in this minute.

        each: subjects are counted apart; only for subjects that exist, never for what a caller says.
        """
        ...
