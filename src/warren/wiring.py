"""Puts the parts together: the only place that knows every one of them."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog
import uvicorn

from warren import __version__, durable
from warren.api.app import create_app
from warren.api.context import Context
from warren.audit.chain import Chain
from warren.audit.folder import AuditFolder
from warren.audit.log import AuditLog
from warren.contracts.audit import Audit
from warren.contracts.building import Builder, ImageSource
from warren.contracts.engine import Engine
from warren.contracts.guest import Guest, Workshop
from warren.contracts.store import Store
from warren.control.activity import Activity
from warren.control.build_bench import Bench
from warren.control.build_layers import Layers
from warren.control.building import Archives, TemplateBuilder
from warren.control.builds import Builds
from warren.control.checkpoints import Checkpoints
from warren.control.clock import SystemClock, SystemIds
from warren.control.denials import Denials
from warren.control.elsewhere import Elsewhere
from warren.control.forking import Forking
from warren.control.garbage import Garbage
from warren.control.health import GuestHealth
from warren.control.identity import load_identity, settle
from warren.control.idleness import Idleness
from warren.control.keys import Keys
from warren.control.launching import Launcher
from warren.control.leases import Leases
from warren.control.live import LiveSandboxes
from warren.control.memory import MemoryRelief
from warren.control.observation import Observations
from warren.control.pausing import Pausing
from warren.control.resuming import Resuming
from warren.control.sandbox_end import Ending
from warren.control.sandbox_start import Starting
from warren.control.sandboxes import Sandboxes
from warren.control.sealing import load_keyring
from warren.control.secrets import Secrets
from warren.control.servers import Servers
from warren.control.services import Services
from warren.control.snapshots import Snapshots
from warren.control.spares import Spares
from warren.control.supervision import Supervision
from warren.control.template_memory import TemplateMemory
from warren.control.templates import TemplateFiles, Templates
from warren.control.tokens import Tokens, load_seed
from warren.control.uploads import Uploads
from warren.control.volume_files import VolumeFiles
from warren.control.volumes import Volumes
from warren.control.waking import Waking
from warren.control.watches import Watches
from warren.control.work import Work
from warren.engine.oci.engine import OciEngine
from warren.gateway.certificates import TlsFiles, ensure_certificates, given_certificates
from warren.gateway.server import Gateway
from warren.guest.guestd import GuestdClient
from warren.guest.workshop import GuestWorkshop
from warren.images.registries import parse_registries
from warren.images.source import OciImages
from warren.model import limits
from warren.model.audit import Event, Kind, Outcome
from warren.model.errors import Unauthenticated, Unavailable
from warren.model.idle import parse_ladders
from warren.model.pool import Budget, parse_floors
from warren.model.server import Server
from warren.settings import Settings
from warren.store.sql import SqlStore
from warren.telemetry import tracing
from warren.telemetry.logs import configure
from warren.telemetry.meters import Meters

log = structlog.get_logger(__name__)

LOCAL_KEY = "local-key"
"""File of the state folder with the key that this machine's root uses; made at first start, mode 0600."""


@dataclass(frozen=True, slots=True)
class Control:
    """The use cases over one engine, one guest protocol and one store."""

    server_id: str
    context: Context
    starting: Starting
    memory: TemplateMemory | None
    spares: Spares
    servers: Servers
    live: LiveSandboxes
    watches: Watches
    pausing: Pausing
    waking: Waking
    activity: Activity
    idleness: Idleness
    supervision: Supervision
    observations: Observations
    denials: Denials
    health: GuestHealth
    meters: Meters


@dataclass(frozen=True, slots=True)
class _Grounds:
    """What all use cases stand on."""

    server_id: str
    engine: Engine
    guest: Guest
    store: Store
    work: Work
    audit: Audit
    clock: SystemClock
    ids: SystemIds
    meters: Meters
    tokens: Tokens
    live: LiveSandboxes
    images: TemplateFiles
    layers: Layers
    leases: Leases
    workshop: Workshop | None


@dataclass(frozen=True, slots=True)
class _Life:
    """What moves sandboxes from state to state."""

    checkpoints: Checkpoints
    relief: MemoryRelief
    ending: Ending
    watches: Watches
    pausing: Pausing
    memory: TemplateMemory | None
    spares: Spares
    starting: Starting
    resuming: Resuming


def build_control(
    settings: Settings,
    engine: Engine,
    guest: Guest,
    store: Store,
    work: Work,
    *,
    audit: Audit,
    workshop: Workshop | None = None,
    source: Callable[[TemplateFiles], ImageSource] | None = None,
    builder: Builder | None = None,
) -> Control:
    """`builder` takes the place of the one over `workshop`. Without either, no template is built."""
    tokens, meters = Tokens(load_seed(settings.state_dir / "token-seed")), Meters()
    on = _Grounds(
        server_id=load_identity(settings.state_dir).id, engine=engine, guest=guest, store=store, work=work, audit=audit,
        clock=SystemClock(), ids=SystemIds(), meters=meters, tokens=tokens, live=LiveSandboxes(tokens, meters),
        images=TemplateFiles(settings.templates_dir), layers=Layers(settings.layers_dir), leases=Leases(),
        workshop=workshop,
    )  # fmt: skip
    life, activity = _build_life(settings, on), Activity(on.clock)
    snapshots = _build_snapshots(on, life)
    observations = Observations(
        engine=engine, guest=guest, store=store, clock=on.clock, live=on.live, activity=activity
    )  # fmt: skip
    templates = Templates(server_id=on.server_id, store=store, clock=on.clock, files=on.images)
    uploads = Uploads(folder=settings.uploads_dir, tokens=tokens, clock=on.clock)
    images = source and source(on.images)
    garbage = _build_garbage(on, life, images)
    if builder is None and workshop is not None:
        builder = _build_builder(on, life, workshop, templates, uploads.path, images, garbage)
    builds = Builds(
        server_id=on.server_id, builder=builder, store=store, clock=on.clock, ids=on.ids, templates=templates,
        uploads=uploads, leases=on.leases, garbage=garbage, work=work, meters=meters, audit=audit,
    )  # fmt: skip
    context = Context(
        sandboxes=_build_sandboxes(on, life, snapshots), observations=observations, templates=templates, builds=builds,
        uploads=uploads, snapshots=snapshots, keys=Keys(store=store, clock=on.clock, ids=on.ids),
        secrets=_build_secrets(settings, on), volumes=_build_volumes(settings, on),
        volume_files=VolumeFiles(engine=engine, store=store, tokens=tokens),
        domain=settings.public_domain, spares=life.spares, meters=meters,
        audit=audit, garbage=garbage, root_key=settings.state_dir / LOCAL_KEY,
    )  # fmt: skip
    return Control(
        server_id=on.server_id,
        context=context,
        starting=life.starting,
        memory=life.memory,
        spares=life.spares,
        servers=Servers(
            me=Server(on.server_id, settings.server, on.clock.now()), store=store, clock=on.clock, audit=audit
        ),
        live=on.live,
        watches=life.watches,
        pausing=life.pausing,
        waking=Waking(server_id=on.server_id, store=store, live=on.live, resuming=life.resuming, audit=audit),
        activity=activity,
        idleness=Idleness(
            server_id=on.server_id, engine=engine, store=store, clock=on.clock, activity=activity,
            pausing=life.pausing, resuming=life.resuming, ladders=parse_ladders(settings.idle),
        ),
        supervision=Supervision(
            server_id=on.server_id, engine=engine, store=store, clock=on.clock, live=on.live, watches=life.watches,
            ending=life.ending, pausing=life.pausing, resuming=life.resuming, checkpoints=life.checkpoints, work=work,
        ),
        observations=observations,
        denials=Denials(engine=engine, clock=on.clock, audit=audit, meters=meters),
        health=GuestHealth(guest=guest, store=store, clock=on.clock, live=on.live, meters=meters),
        meters=meters,
    )  # fmt: skip


def _build_life(settings: Settings, on: _Grounds) -> _Life:
    engine, store, clock, ids, work = on.engine, on.store, on.clock, on.ids, on.work
    checkpoints = Checkpoints(
        engine=engine, store=store, ids=ids, layers=lambda: on.layers.checkpoints() | on.leases.all()
    )
    ending = Ending(
        engine=engine, store=store, clock=clock, live=on.live, checkpoints=checkpoints,
        work=work, meters=on.meters, audit=on.audit,
    )  # fmt: skip
    relief = MemoryRelief(
        engine=engine, guest=on.guest, store=store, clock=clock, live=on.live, ending=ending, meters=on.meters
    )
    watches = Watches(engine=engine, live=on.live, ending=ending, relief=relief, work=work)
    pausing = Pausing(
        engine=engine, guest=on.guest, store=store, clock=clock, tokens=on.tokens, live=on.live,
        watches=watches, checkpoints=checkpoints, ending=ending, work=work, meters=on.meters,
    )  # fmt: skip
    services = None if on.workshop is None else Services(on.workshop)
    memory = None if services is None else TemplateMemory(
        engine=engine, services=services, images=on.images, layers=on.layers, checkpoints=checkpoints,
        bench=Bench(engine=engine, guest=on.guest, relief=relief, tokens=on.tokens, ids=ids),
    )  # fmt: skip
    launcher = Launcher(
        engine=engine, guest=on.guest, tokens=on.tokens, images=on.images, services=services,
        memory={} if memory is None else memory.taken,
    )  # fmt: skip
    spares = Spares(
        engine=engine, launcher=launcher, store=store, clock=clock, ids=ids, work=work, meters=on.meters,
        floors=parse_floors(settings.pool), budget=Budget(settings.pool_sandboxes, settings.pool_memory_mb),
    )  # fmt: skip
    starting = Starting(
        server_id=on.server_id, engine=engine, launcher=launcher, spares=spares, store=store, clock=clock, ids=ids,
        watches=watches, ending=ending, work=work, meters=on.meters,
    )  # fmt: skip
    resuming = Resuming(
        engine=engine, launcher=launcher, store=store, clock=clock,
        watches=watches, checkpoints=checkpoints, pausing=pausing, ending=ending, work=work, meters=on.meters,
    )  # fmt: skip
    return _Life(checkpoints, relief, ending, watches, pausing, memory, spares, starting, resuming)


def _build_garbage(on: _Grounds, life: _Life, source: ImageSource | None) -> Garbage:
    return Garbage(
        engine=on.engine, store=on.store, clock=on.clock, images=on.images, source=source, layers=on.layers,
        checkpoints=life.checkpoints, leases=on.leases, memories={} if life.memory is None else life.memory.taken,
    )  # fmt: skip


def _build_builder(  # noqa: PLR0917  # all of it, in one place
    on: _Grounds, life: _Life, workshop: Workshop, templates: Templates, archives: Archives,
    source: ImageSource | None, garbage: Garbage,
) -> Builder:  # fmt: skip
    bench = Bench(engine=on.engine, guest=on.guest, relief=life.relief, tokens=on.tokens, ids=on.ids)
    return TemplateBuilder(
        engine=on.engine, workshop=workshop, bench=bench, services=Services(workshop), clock=on.clock,
        templates=templates, images=on.images, source=source, archives=archives, layers=on.layers,
        checkpoints=life.checkpoints, leases=on.leases, garbage=garbage,
    )  # fmt: skip


def _build_sandboxes(on: _Grounds, life: _Life, snapshots: Snapshots) -> Sandboxes:
    return Sandboxes(
        engine=on.engine, store=on.store, clock=on.clock, tokens=on.tokens, live=on.live,
        elsewhere=Elsewhere(server_id=on.server_id, store=on.store), starting=life.starting, ending=life.ending,
        watches=life.watches, pausing=life.pausing, resuming=life.resuming, snapshots=snapshots,
        forking=Forking(
            engine=on.engine, store=on.store, checkpoints=life.checkpoints, starting=life.starting, work=on.work,
            meters=on.meters,
        ),
    )  # fmt: skip


def _build_snapshots(on: _Grounds, life: _Life) -> Snapshots:
    return Snapshots(
        engine=on.engine, store=on.store, clock=on.clock, ids=on.ids, checkpoints=life.checkpoints, work=on.work,
        meters=on.meters,
    )  # fmt: skip


def _build_volumes(settings: Settings, on: _Grounds) -> Volumes:
    return Volumes(
        server_id=on.server_id, engine=on.engine, store=on.store, clock=on.clock, ids=on.ids, tokens=on.tokens,
        work=on.work, default_mb=settings.volume_mb,
    )  # fmt: skip


def _build_secrets(settings: Settings, on: _Grounds) -> Secrets:
    keyring = load_keyring(settings.secrets_key, settings.secrets_key_file, settings.own_secrets_key)
    return Secrets(store=on.store, clock=on.clock, ids=on.ids, keyring=keyring)


def prepare_state(settings: Settings) -> None:
    """The state folder, for root alone: it holds keys, tokens and layers."""
    settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    settings.state_dir.chmod(0o700)
    settings.templates_dir.mkdir(exist_ok=True, mode=0o700)


def opened_images(settings: Settings, files: TemplateFiles) -> ImageSource:
    known = parse_registries(
        settings.registry_mirrors, settings.registry_insecure, settings.registry_private,
        ecr_endpoint=settings.ecr_endpoint, proxy=settings.registry_proxy,
    )  # fmt: skip
    images = OciImages(settings.images_dir, known, adopt=files.adopt, use=files.use)
    files.open()
    images.open()
    return images


@asynccontextmanager
async def opened_store(settings: Settings) -> AsyncGenerator[Store]:
    prepare_state(settings)
    store = SqlStore(settings.database)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def opened_audit(settings: Settings) -> AsyncGenerator[AuditLog]:
    """Raises AuditUnavailable when another server writes to it, or somebody tampered with it."""
    clock = SystemClock()
    chain = Chain(AuditFolder(settings.audit_dir), clock.now())
    audit = AuditLog(chain, clock, must_write=settings.audit_required)
    try:
        yield audit
    finally:
        await audit.close()


async def find_local_key(settings: Settings, store: Store) -> str | None:
    """The key of this machine's root, if it is in force."""
    file = settings.state_dir / LOCAL_KEY
    if not file.exists():
        return None
    secret = file.read_text().strip()
    try:
        await Keys(store=store, clock=SystemClock(), ids=SystemIds()).authenticate(secret)
    except Unauthenticated:
        return None
    return secret


async def make_local_key(settings: Settings, store: Store, audit: Audit) -> str:
    keys = Keys(store=store, clock=SystemClock(), ids=SystemIds())
    project = await keys.default_project()
    key, secret = await keys.create(project, "local")
    audit.note(Event(Kind.KEY_CREATE, Outcome.ALLOWED, "local_key", f"key:{key.id}", project.id))
    durable.write(settings.state_dir / LOCAL_KEY, secret + "\n")
    return secret


def tls_files(settings: Settings) -> TlsFiles:
    if settings.tls_cert or settings.tls_key:
        cert, key = Path(settings.tls_cert), Path(settings.tls_key)
        return given_certificates(settings.tls_dir, settings.domain, cert, key)
    return ensure_certificates(settings.tls_dir, settings.domain)


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
