"""The sandboxes that take traffic now: what the gateway routes by, and what the deadlines run on."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import structlog

from warren.contracts.routing import Route
from warren.control.tokens import Tokens
from warren.model.sandbox import Sandbox
from warren.telemetry.meters import Meters

log = structlog.get_logger(__name__)


class LiveSandboxes:
    """Implements `contracts.routing.Routes`."""

    def __init__(self, tokens: Tokens, meters: Meters) -> None:
        self._tokens, self._meters = tokens, meters
        self._routes: dict[str, Route] = {}
        self._asleep: set[str] = set()
        self._runtimes: dict[str, str] = {}
        self._on_gone: list[Callable[[str], None]] = []
        self._on_cut: list[Callable[[str], None]] = []

    def find(self, sandbox_id: str) -> Route | None:
        return self._routes.get(sandbox_id)

    def all(self) -> Iterable[Route]:
        return tuple(self._routes.values())

    def on_gone(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with the id when a route is taken away. One whose guest falls silent keeps it."""
        self._on_gone.append(callback)

    def on_cut(self, callback: Callable[[str], None]) -> None:
        self._on_cut.append(callback)

    def add(self, sandbox: Sandbox, address: str) -> Route:
        route = self.route_of(sandbox, address)
        self._asleep.discard(sandbox.id)
        if sandbox.id not in self._routes:
            self._runtimes[sandbox.id] = sandbox.runtime
            self._meters.running.labels(sandbox.runtime).inc()
        self._routes[sandbox.id] = route
        return route

    def route_of(self, sandbox: Sandbox, address: str) -> Route:
        return Route(
            sandbox_id=sandbox.id,
            address=address,
            access_token=self._tokens.access(sandbox.id) if sandbox.secured else None,
            control_token=self._tokens.control(sandbox.id),
            traffic_token=None if sandbox.network.public_traffic else self._tokens.traffic(sandbox.id),
            mask_host=sandbox.network.mask_host,
        )

    def doze(self, sandbox_id: str) -> None:
        """It sleeps here: traffic to it is worth a look into the store, which traffic to made-up ids is not."""
        self._asleep.add(sandbox_id)

    def is_asleep(self, sandbox_id: str) -> bool:
        return sandbox_id in self._asleep

    def remove(self, sandbox_id: str) -> None:
        """Stop routing and cut what is open, before anything else happens to the sandbox."""
        self._asleep.discard(sandbox_id)
        if self._routes.pop(sandbox_id, None) is None:
            return
        self._meters.running.labels(self._runtimes.pop(sandbox_id)).dec()
        _call(self._on_gone, sandbox_id)
        _call(self._on_cut, sandbox_id)

    def mark(self, route: Route, *, answers: bool) -> bool:
        """Note whether the guest behind this route answers; False when the route is another one by now."""
        if self._routes.get(route.sandbox_id) is not route:
            return False
        self._routes[route.sandbox_id] = replace(route, answers=answers)
        if not answers:
            _call(self._on_cut, route.sandbox_id)
        return True


def _call(callbacks: Iterable[Callable[[str], None]], sandbox_id: str) -> None:
    for callback in callbacks:
        callback(sandbox_id)
