"""The gateway: two listeners, plain and TLS, before all sandboxes and the API."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from warren.contracts.audit import Audit
from warren.contracts.engine import GUEST_PORT
from warren.contracts.routing import Routes, Sleepers, Traffic
from warren.gateway import pages, tally
from warren.gateway.admission import Asked, ToAbsent, ToApi, ToSandbox, admit, origin_form
from warren.gateway.certificates import TlsFiles, ensure_certificates
from warren.gateway.connector import PortClosed
from warren.gateway.heads import Forwarding, MalformedHead, header_bytes
from warren.gateway.links import Link, Links, Relay
from warren.gateway.listener import ClientServer
from warren.gateway.pages import Refusal
from warren.gateway.refused import note_refusal
from warren.gateway.relay_http import BadBody, BadUpstream, Exchange, Sent, relay_http
from warren.gateway.resolve import SandboxTarget
from warren.gateway.tally import Tally
from warren.gateway.waking import wake
from warren.model import limits
from warren.telemetry import request_id, tracing
from warren.telemetry.meters import Meters

log = structlog.get_logger(__name__)
_UNREADABLE = frozenset({400, 417, 431})
"""After these nobody can be sure where the next request begins: the connection is closed."""


class Gateway:
    """`routes.on_cut` must call on the loop that runs the gateway. Port 0 picks a free one, found in `port` later.

    name_of_home: the name of another server that has a sandbox which is not here, None when there is none.
    """

    def __init__(
        self,
        routes: Routes,
        sleepers: Sleepers,
        traffic: Traffic,
        *,
        host: str,
        port: int,
        tls: TlsFiles | None,
        tls_port: int,
        domain: str,
        api_port: int,
        meters: Meters,
        audit: Audit,
        name_of_home: Callable[[str], Awaitable[str | None]],
    ) -> None:
        self.host, self.port, self.tls_port = host, port, tls_port
        self._routes, self._sleepers, self._traffic = routes, sleepers, traffic
        self._name_of_home = name_of_home
        self._tls = tls
        self._domain = domain.lower()
        self._links = Links(api_port)
        self._audit, self._meters = audit, meters
        self._tally = Tally(meters, self._links)
        self._clients: ClientServer | None = None
        self._listeners: list[asyncio.Server] = []
        self._context: ssl.SSLContext | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        routes.on_cut(self._links.cut)

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._clients = ClientServer(self._handle, loop)
        plain = await loop.create_server(self._clients, self.host, self.port, backlog=limits.GATEWAY_BACKLOG)
        self._listeners.append(plain)
        self.port = plain.sockets[0].getsockname()[1]
        if self._tls is not None:
            self._context = _server_context(self._tls)
            secure = await loop.create_server(
                self._clients,
                self.host,
                self.tls_port,
                backlog=limits.GATEWAY_BACKLOG,
                ssl=self._context,
                ssl_handshake_timeout=limits.GATEWAY_HEAD_DEADLINE_S,
            )
            self._listeners.append(secure)
            self.tls_port = secure.sockets[0].getsockname()[1]
        self._sweep()
        self._renew()

    async def stop(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        for listener in self._listeners:
            listener.close()
        if self._clients is not None:
            self._clients.pre_shutdown()
            await self._clients.shutdown(limits.GATEWAY_STOP_GRACE_S)
        self._links.cut_all()
        for listener in self._listeners:
            await listener.wait_closed()
        self._listeners.clear()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        client = request.transport
        if client is None:
            return Sent(keep_alive=False)
        relay = Relay(client, asyncio.get_running_loop().time)
        try:
            outcome = await self._serve(request, relay)
        except (MalformedHead, BadBody) as error:
            outcome = pages.malformed(str(error) or "cannot read the request's body")
        except asyncio.CancelledError:
            self._tally.ended(relay, None)
            raise
        except Exception:  # the top of one request: whatever it is, the client gets an answer
            log.exception("gateway request failed", method=request.method, path=request.rel_url.raw_path)
            outcome = Refusal(500, "cannot serve the request; the server's log has the reason", "Internal Error")
        self._tally.ended(relay, outcome)
        if not isinstance(outcome, Refusal):
            return outcome
        note_refusal(self._audit, self._meters, outcome, request.remote)
        if relay.is_answered or relay.is_cut:
            relay.cut()
            return Sent(keep_alive=False)
        response = pages.answer(outcome, request.headers)
        if outcome.status in _UNREADABLE:
            response.force_close()
        return response

    async def _serve(self, request: web.BaseRequest, relay: Relay) -> web.StreamResponse | Refusal:
        if header_bytes(request.raw_headers) > limits.GATEWAY_HEADER_BYTES:
            return pages.malformed("cannot take so large a head; send fewer or shorter headers", 431)
        if request.headers.get("Expect", "100-continue").lower() != "100-continue":
            return pages.malformed("cannot meet that expectation; only 100-continue is known", 417)
        hosts = request.headers.getall("Host", [])
        path = origin_form(request.raw_path, hosts[0]) if len(hosts) == 1 else None
        if path is None:
            return pages.malformed("Invalid host" if len(hosts) != 1 else "Invalid request target")
        asked = Asked(request.method, path, hosts[0], request.headers)
        admitted = admit(asked, self._routes, self._domain)
        if isinstance(admitted, ToAbsent):
            admitted = await self._absent(asked, admitted.target)
        if isinstance(admitted, Refusal):
            return admitted
        return await self._relay(request, relay, path, hosts[0], admitted)

    async def _absent(self, asked: Asked, target: SandboxTarget) -> ToSandbox | Refusal:
        woken = await wake(asked, target, self._sleepers)
        if woken is not None:
            return woken
        server = await self._name_of_home(target.sandbox_id)
        return pages.not_found(target.sandbox_id) if server is None else pages.away(target.sandbox_id, server)

    async def _relay(
        self, request: web.BaseRequest, relay: Relay, path: str, host: str, admitted: ToApi | ToSandbox
    ) -> web.StreamResponse | Refusal:
        if isinstance(admitted, ToSandbox):
            link, port, passed_host = self._links.to(admitted.route), admitted.port, admitted.host_header(host)
        else:
            link, port, passed_host = self._links.api(), self._links.api_port, host
        relay.kind = tally.kind_of(request, link)
        if not link.enter(relay):
            return pages.too_many(link.key)
        # Towards our own parts only: what a user's service gets is the client's business.
        is_ours = link.control_token is None or port == GUEST_PORT
        own = {request_id.HEADER: request_id.accepted(request.headers.get(request_id.HEADER))} if is_ours else {}
        scheme = "https" if relay.client.get_extra_info("sslcontext") else "http"
        self._traffic.enter(link.key)
        try:
            with tracing.span(f"relay {relay.kind}", request.headers.get(tracing.PARENT), **own):
                if is_ours and (parent := tracing.traceparent()) is not None:
                    own[tracing.PARENT] = parent
                forwarding = Forwarding(passed_host, host, request.remote or "", scheme, own)
                return await relay_http(Exchange(request, path, link, port, forwarding, relay))
        except (PortClosed, BadUpstream) as error:
            return await self._refusal(link, port, closed=isinstance(error, PortClosed))
        finally:
            self._traffic.leave(link.key)
            link.leave(relay)

    async def _refusal(self, link: Link, port: int, *, closed: bool) -> Refusal:
        if link.control_token is None:
            return pages.api_unreachable()
        route = self._routes.find(link.key)
        if route is not None and not route.answers:
            return pages.silent(link.key)
        # A guest always listens and always answers: without one there is no sandbox any more, or will soon be none.
        if link.is_gone or (port == GUEST_PORT and (closed or await link.gone_within(limits.GATEWAY_END_NEWS_S))):
            return pages.not_found(link.key)
        return pages.port_closed(link.key, port) if closed else pages.bad_answer(link.key, port)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._timers["sweep"] = loop.call_later(limits.GATEWAY_SWEEP_S, self._sweep)
        self._links.sweep(loop.time(), lambda sandbox_id: self._routes.find(sandbox_id) is not None)

    def _renew(self) -> None:
        """A server outlives its certificate: look once a day, new connections get the new one, whoever made it."""
        if self._tls is None or self._context is None:
            return
        loop = asyncio.get_running_loop()
        self._timers["renew"] = loop.call_later(limits.GATEWAY_CERTIFICATE_CHECK_S, self._renew)
        if self._tls.is_own:
            self._tls = ensure_certificates(self._tls.directory, self._domain)
        self._context.load_cert_chain(self._tls.certificate, self._tls.key)


def _server_context(tls: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tls.certificate, tls.key)
    context.set_alpn_protocols(["http/1.1"])
    return context
