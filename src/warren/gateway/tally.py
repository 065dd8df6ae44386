"""What the gateway counts. The numbers that move with every chunk stay plain integers until somebody adds them up."""

from prometheus_client import Counter

from warren.gateway.links import Links, Relay
from warren.gateway.pages import Refusal
from warren.telemetry.meters import Meters

OK = "ok"
CUT = "cut"
"""An answer, or a WebSocket, that was broken off after it had begun."""
LEFT = "left"
"""The client did not wait for its answer."""
NO_KIND = "none"
"""Refused before it was clear what it was for."""


class Tally:
    """Keeps the labelled counters at hand: looking one up costs more than adding to it."""

    def __init__(self, meters: Meters, links: Links) -> None:
        self._relays = meters.relays
        self._by_labels: dict[tuple[str, str], Counter] = {}
        self._to_sandboxes = meters.relayed_bytes.labels("to_sandbox")
        self._from_sandboxes = meters.relayed_bytes.labels("from_sandbox")
        self._links = links
        meters.relays_open.set_function(links.count_relays)

    def ended(self, relay: Relay, kind: str, outcome: str) -> None:
        self.carried(relay)
        counter = self._by_labels.get((kind, outcome))
        if counter is None:
            counter = self._by_labels[kind, outcome] = self._relays.labels(kind, outcome)
        counter.inc()

    def carried(self, relay: Relay) -> None:
        """Add what went by since the last time: also of relays that stay open for days."""
        if relay.sent:
            self._to_sandboxes.inc(relay.sent)
            relay.sent = 0
        if relay.received:
            self._from_sandboxes.inc(relay.received)
            relay.received = 0

    def sweep(self) -> None:
        for relay in self._links.relays():
            self.carried(relay)


def refused(refusal: Refusal) -> str:
    """A refusal's outcome is its status: they are few, and all of them are in `pages`."""
    return str(refusal.status)
