"""Which of the gateway's refusals go into the audit log: those that somebody without the right token ran into."""

from warren.contracts.audit import Audit
from warren.gateway.pages import Refusal
from warren.model.audit import Event, Kind, Outcome
from warren.telemetry.meters import Meters

_WITHOUT_RIGHT = frozenset({401, 403})


def note_refusal(audit: Audit, meters: Meters, refusal: Refusal, address: str | None) -> None:
    """A sandbox that is named here exists: without one the answer was another."""
    if refusal.status not in _WITHOUT_RIGHT:
        return
    meters.refusals.labels(Kind.TRAFFIC_REFUSED.value).inc()
    audit.sample(
        Event(
            Kind.TRAFFIC_REFUSED,
            Outcome.REFUSED,
            rule=refusal.title.lower().replace(" ", "_"),
            subject=f"sandbox:{refusal.sandbox_id}" if refusal.sandbox_id else "",
            via="gateway",
            details={"address": address or ""},
        ),
        each=refusal.sandbox_id is not None,
    )
