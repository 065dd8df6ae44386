"""What the gateway counts: plain integers on the path of a request, added up when somebody asks for the numbers."""

from collections import Counter

from aiohttp import web

from warren.gateway.links import Link, Links, Relay
from warren.gateway.pages import Refusal
from warren.gateway.relay_ws import asks_for_websocket
from warren.telemetry.meters import Meters


class Tally:
    def __init__(self, meters: Meters, links: Links) -> None:
        self._meters, self._links = meters, links
        self._ended: Counter[tuple[str, str]] = Counter()
        self._inward = self._outward = 0
        meters.before_render(self._add_up)

    def ended(self, relay: Relay, outcome: web.StreamResponse | Refusal | None) -> None:
        self._take_bytes(relay)
        self._ended[relay.kind, outcome_of(relay, outcome)] += 1

    def _take_bytes(self, relay: Relay) -> None:
        self._inward += relay.sent
        self._outward += relay.received
        relay.sent = relay.received = 0

    def _add_up(self) -> None:
        """Of open relays too: some stay so for days, and their bytes are not to appear all at once at the end."""
        for relay in self._links.relays():
            self._take_bytes(relay)
        self._meters.relays_open.set(self._links.count_relays())
        self._meters.relayed_bytes.labels("in").inc(self._inward)
        self._meters.relayed_bytes.labels("out").inc(self._outward)
        self._inward = self._outward = 0
        for labels, count in self._ended.items():
            self._meters.relays.labels(*labels).inc(count)
        self._ended.clear()


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
