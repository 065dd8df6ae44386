"""Which of many equal events are written, and how many were not. Pure: time comes in as seconds."""

from collections.abc import Hashable
from dataclasses import dataclass, replace

from warren.model import limits
from warren.model.audit import Event

_VARIOUS = "various"
"""The rule of a count over everything that came when there were too many groups."""


@dataclass(slots=True)
class _Group:
    event: Event
    since: float
    seen: int = 0
    untold: int = 0


class Summary:
    def __init__(self) -> None:
        self._groups: dict[Hashable, _Group] = {}

    def admits(self, event: Event, now: float, *, each: bool) -> bool:
        """Whether to write this one. If not, it is counted."""
        counted = replace(event, subject=event.subject if each else "", key="", request="", details={})
        name: Hashable = (event.kind, event.outcome, event.rule, event.project, counted.subject)
        if name not in self._groups and len(self._groups) >= limits.AUDIT_SUMMARY_GROUPS:
            counted = Event(event.kind, event.outcome, rule=_VARIOUS)
            name = event.kind
        found = self._groups.setdefault(name, _Group(counted, now))
        found.seen += 1
        if found.seen <= limits.AUDIT_SUMMARY_FIRST:
            return True
        found.untold += 1
        return False

    def due(self, now: float, *, final: bool = False) -> list[Event]:
        """The counts of the groups whose time is over (finally: of all), as one event each; the groups begin anew."""
        over = [name for name, group in self._groups.items() if final or now - group.since >= limits.AUDIT_SUMMARY_S]
        groups = [self._groups.pop(name) for name in over]
        return [_counted(group, now) for group in groups if group.untold]


def _counted(group: _Group, now: float) -> Event:
    details: dict[str, str | int] = {"count": group.untold, "seconds": round(now - group.since)}
    return replace(group.event, details=details)
