"""What the gateway counts. Numbers that move with every chunk stay plain integers until they are added up here."""

from aiohttp import web
from prometheus_client import Counter

from warren.gateway.links import Link, Links, Relay
from warren.gateway.pages import Refusal
from warren.gateway.relay_ws import asks_for_websocket
from warren.telemetry.meters import Meters


class Tally:
    """Keeps the labelled counters at hand: looking one up costs more than adding to it."""

    def __init__(self, meters: Meters, links: Links) -> None:
        self._relays = meters.relays
        self._by_labels: dict[tuple[str, str], Counter] = {}
        self._inward = meters.relayed_bytes.labels("in")
        self._outward = meters.relayed_bytes.labels("out")
        self._links = links
        meters.relays_open.set_function(links.count_relays)

    def ended(self, relay: Relay, outcome: web.StreamResponse | Refusal | None) -> None:
        self._add_bytes(relay)
        labels = relay.kind, outcome_of(relay, outcome)
        counter = self._by_labels.get(labels)
        if counter is None:
            counter = self._by_labels[labels] = self._relays.labels(*labels)
        counter.inc()

    def sweep(self) -> None:
        """Some relays stay open for days: what they carry is not to appear all at once at their end."""
        for relay in self._links.relays():
            self._add_bytes(relay)

    def _add_bytes(self, relay: Relay) -> None:
        if relay.sent:
            self._inward.inc(relay.sent)
            relay.sent = 0
        if relay.received:
            self._outward.inc(relay.received)
            relay.received = 0


def kind_of(request: web.BaseRequest, link: Link) -> str:
    if link.control_token is None:
        return "api"
    return "ws" if "Upgrade" in request.headers and asks_for_websocket(request) else "http"


def outcome_of(relay: Relay, outcome: web.StreamResponse | Refusal | None) -> str:
    """`ok`: the answer was relayed, whatever it says. `cut`: it was broken off. `left`: the client did not wait.

    A refusal's outcome is its status: they are few, and all of them are in `pages`.
    """
    if relay.is_cut or (isinstance(outcome, Refusal) and relay.is_answered):
        return "cut"
    if isinstance(outcome, Refusal):
        return str(outcome.status)
    return "left" if outcome is None else "ok"
