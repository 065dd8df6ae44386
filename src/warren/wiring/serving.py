"""`warren serve`: all parts in one process, from its start to its end."""

import asyncio
import contextlib
import signal
import socket
from functools import partial
from pathlib import Path

import structlog
import uvicorn

from warren import __version__
from warren.api.app import create_app
from warren.api.context import Context
from warren.control.identity import load_identity, settle
from warren.control.servers import Servers
from warren.control.supervision import Supervision
from warren.control.work import Work
from warren.engine.oci.engine import OciEngine
from warren.gateway.server import Gateway
from warren.guest.guestd import GuestdClient
from warren.guest.workshop import GuestWorkshop
from warren.model import limits
from warren.model.audit import Event, Kind, Outcome
from warren.model.errors import Unavailable
from warren.settings import Settings
from warren.telemetry import tracing
from warren.telemetry.logs import configure
from warren.wiring.control import build_control
from warren.wiring.state import (
    find_local_key,
    make_local_key,
    opened_audit,
    opened_images,
    opened_store,
    prepare_state,
    tls_files,
)

log = structlog.get_logger(__name__)


async def serve(settings: Settings) -> None:
    """Run API, gateway and engine in this process until SIGINT or SIGTERM.

    Then requests under way get `limits.STOP_DRAIN_S`; what is not done by then is broken off, and undone at once or by
    the next server. Sandboxes go on, unless the settings say otherwise.
    """
    configure(settings.log_level, settings.log_json, file=Path(settings.log_file) if settings.log_file else None)
    prepare_state(settings)
    engine, guest = OciEngine(settings), GuestdClient()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        if settings.otlp_endpoint:
            stack.push_async_callback(asyncio.to_thread, tracing.configure(settings.otlp_endpoint))
        await engine.open()
        stack.push_async_callback(engine.close)
        store = await stack.enter_async_context(opened_store(settings))
        stack.push_async_callback(guest.close)
        audit = await stack.enter_async_context(opened_audit(settings))
        audit.note(Event(Kind.SERVER_START, Outcome.OBSERVED, details={"version": __version__}))
        stack.callback(audit.note, Event(Kind.SERVER_STOP, Outcome.OBSERVED))
        if await find_local_key(settings, store) is None:
            await make_local_key(settings, store, audit)
        work = await stack.enter_async_context(Work())
        work.spawn(audit.run(), "audit")
        control = build_control(
            settings, engine, guest, store, work,
            audit=audit, workshop=GuestWorkshop(), source=partial(opened_images, settings),
        )  # fmt: skip
        built_in = await control.context.templates.register_built_in(settings.cache_dir / "templates")
        await control.context.secrets.reseal()
        await _take_place(settings, control.servers)
        work.spawn(control.servers.run(), "heartbeat")
        await control.supervision.adopt()
        await control.context.builds.recover()
        await control.context.volumes.recover()
        work.spawn(control.supervision.run(), "supervision")
        work.spawn(control.observations.run(), "observations")
        work.spawn(control.denials.run(), "denials")
        work.spawn(control.health.run(), "health")
        work.spawn(control.idleness.run(), "idleness")
        work.spawn(control.context.builds.run(), "builds")
        work.spawn(control.spares.run(lambda: control.starting.is_idle), "pool")
        stack.push_async_callback(control.spares.drain)
        if settings.prime_templates and control.memory is not None:
            work.spawn(control.memory.take(built_in), "memory of built-in templates")
        gateway = Gateway(
            control.live,
            control.waking,
            control.activity,
            host=settings.host,
            port=settings.gateway_port,
            tls=tls_files(settings),
            tls_port=settings.tls_port,
            domain=settings.domain,
            api_port=settings.api_port,
            meters=control.meters,
            audit=audit,
            name_of_home=control.servers.name_of_home,
        )
        await gateway.start()
        stack.push_async_callback(gateway.stop)
        await _serve_api(settings, control.context, stop)
        if settings.stop_sandboxes_on_exit:
            await _end_sandboxes(control.supervision)


async def _end_sandboxes(supervision: Supervision) -> None:
    log.info("ending all sandboxes")
    try:
        async with asyncio.timeout(limits.STOP_ALL_DEADLINE_S):
            await supervision.end_all()
    except TimeoutError:
        log.error("not all sandboxes ended in time; the next server goes on with it")


async def _take_place(settings: Settings, servers: Servers) -> None:
    identity = load_identity(settings.state_dir)
    if not identity.settled:
        await servers.refuse_twin()
    settle(settings.state_dir, identity)
    await servers.register()


async def _serve_api(settings: Settings, context: Context, stop: asyncio.Event) -> None:
    config = uvicorn.Config(
        create_app(context),
        log_config=None,
        access_log=False,
        timeout_keep_alive=300,
        timeout_graceful_shutdown=int(limits.STOP_DRAIN_S),
        lifespan="off",
        # The gateway says who asks; nobody but a process of this machine is believed, whatever the environment says.
        forwarded_allow_ips="127.0.0.1",
    )
    server = uvicorn.Server(config)
    with _listener(settings.host, settings.api_port) as listener:
        async with asyncio.TaskGroup() as group:
            # Not `serve`: that would put signal handlers of its own in place of ours.
            group.create_task(server._serve([listener]))  # pyright: ignore[reportPrivateUsage]
            log.info("serving", api=settings.api_port, gateway=settings.gateway_port, tls=settings.tls_port)
            await stop.wait()
            log.info("stopping")
            server.should_exit = True


def _listener(host: str, port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise Unavailable(f"cannot listen on {host}:{port}: {error.strerror}; set WARREN_API_PORT") from error
    return listener
