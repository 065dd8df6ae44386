"""The use cases, built over an engine, a guest protocol and a store."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from warren.api.context import Context
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
from warren.control.copying import Copying
from warren.control.denials import Denials
from warren.control.elsewhere import Elsewhere
from warren.control.forking import Forking
from warren.control.garbage import Garbage
from warren.control.guest_envs import GuestEnvs
from warren.control.health import GuestHealth
from warren.control.identity import load_identity
from warren.control.idleness import Idleness
from warren.control.journals import Journals
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
from warren.control.standstills import Standstills
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
from warren.model.idle import parse_ladders
from warren.model.pool import Budget, parse_floors
from warren.model.server import Server
from warren.settings import Settings
from warren.telemetry.meters import Meters
from warren.wiring.state import LOCAL_KEY


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
    standstills: Standstills
    activity: Activity
    images: TemplateFiles
    layers: Layers
    leases: Leases
    workshop: Workshop | None


@dataclass(frozen=True, slots=True)
class _Life:
    """What moves sandboxes from state to state."""

    checkpoints: Checkpoints
    bench: Bench
    services: Services | None
    ending: Ending
    watches: Watches
    pausing: Pausing
    journals: Journals
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
        standstills=Standstills(), activity=Activity(), images=TemplateFiles(settings.templates_dir),
        layers=Layers(settings.layers_dir), leases=Leases(), workshop=workshop,
    )  # fmt: skip
    life = _build_life(settings, on)
    snapshots = _build_snapshots(on, life)
    observations = _build_observations(on, life)
    ladders = parse_ladders(settings.idle)
    templates = Templates(server_id=on.server_id, store=store, clock=on.clock, files=on.images, ladders=ladders)
    uploads = Uploads(folder=settings.uploads_dir, tokens=tokens, clock=on.clock)
    images = source and source(on.images)
    garbage = _build_garbage(on, life, images)
    if builder is None:
        builder = _build_builder(on, life, templates, uploads.path, images, garbage)
    builds = Builds(
        server_id=on.server_id, builder=builder, store=store, clock=on.clock, ids=on.ids, templates=templates,
        uploads=uploads, leases=on.leases, garbage=garbage, work=work, meters=meters, audit=audit,
    )  # fmt: skip
    context = Context(
        sandboxes=_build_sandboxes(on, life, snapshots), observations=observations, templates=templates,
        builds=builds, uploads=uploads, snapshots=snapshots, keys=Keys(store=store, clock=on.clock, ids=on.ids),
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
        waking=_build_waking(on, life),
        activity=on.activity,
        idleness=Idleness(
            server_id=on.server_id, engine=engine, store=store, clock=on.clock, activity=on.activity,
            pausing=life.pausing, resuming=life.resuming, ladders=ladders,
        ),
        supervision=Supervision(
            server_id=on.server_id, engine=engine, store=store, clock=on.clock, live=on.live, watches=life.watches,
            ending=life.ending, pausing=life.pausing, resuming=life.resuming, checkpoints=life.checkpoints, work=work,
        ),
        observations=observations,
        denials=Denials(engine=engine, clock=on.clock, audit=audit, meters=meters),
        health=_build_health(on),
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
        engine=engine, guest=on.guest, store=store, clock=clock, live=on.live, ending=ending,
        standstills=on.standstills, meters=on.meters,
    )  # fmt: skip
    watches = Watches(engine=engine, live=on.live, ending=ending, relief=relief, work=work)
    journals = Journals(guest=on.guest, store=store, live=on.live)
    pausing = Pausing(
        engine=engine, store=store, clock=clock, live=on.live, standstills=on.standstills, envs=_guest_envs(on),
        watches=watches, checkpoints=checkpoints, ending=ending, work=work, meters=on.meters, journals=journals,
    )  # fmt: skip
    services, memories = None if on.workshop is None else Services(on.workshop), dict[str, str]()
    launcher = Launcher(
        engine=engine, guest=on.guest, tokens=on.tokens, images=on.images, services=services, memory=memories
    )
    spares = Spares(
        engine=engine, launcher=launcher, store=store, clock=clock, ids=ids, work=work, meters=on.meters,
        floors=parse_floors(settings.pool), budget=Budget(settings.pool_sandboxes, settings.pool_memory_mb),
    )  # fmt: skip
    bench = Bench(engine=engine, guest=on.guest, relief=relief, spares=spares, tokens=on.tokens, ids=ids)
    memory = None if services is None else TemplateMemory(
        engine=engine, bench=bench, services=services, images=on.images, layers=on.layers, checkpoints=checkpoints,
        taken=memories,
    )  # fmt: skip
    starting = Starting(
        server_id=on.server_id, engine=engine, launcher=launcher, spares=spares, store=store, clock=clock, ids=ids,
        watches=watches, ending=ending, work=work, meters=on.meters, processors=os.cpu_count() or 1,
    )  # fmt: skip
    resuming = Resuming(
        engine=engine, launcher=launcher, spares=spares, store=store, clock=clock,
        watches=watches, checkpoints=checkpoints, pausing=pausing, ending=ending, work=work, meters=on.meters,
        journals=journals,
    )  # fmt: skip
    return _Life(checkpoints, bench, services, ending, watches, pausing, journals, memory, spares, starting, resuming)


def _build_garbage(on: _Grounds, life: _Life, source: ImageSource | None) -> Garbage:
    return Garbage(
        engine=on.engine, store=on.store, clock=on.clock, images=on.images, source=source, layers=on.layers,
        checkpoints=life.checkpoints, leases=on.leases, memories={} if life.memory is None else life.memory.taken,
    )  # fmt: skip


def _build_builder(  # noqa: PLR0917  # all of it, in one place
    on: _Grounds, life: _Life, templates: Templates, archives: Archives, source: ImageSource | None, garbage: Garbage
) -> Builder | None:
    if on.workshop is None or life.services is None:
        return None
    return TemplateBuilder(
        engine=on.engine, workshop=on.workshop, bench=life.bench, services=life.services, clock=on.clock,
        templates=templates, images=on.images, source=source, archives=archives, layers=on.layers,
        checkpoints=life.checkpoints, leases=on.leases, garbage=garbage,
    )  # fmt: skip


def _build_sandboxes(on: _Grounds, life: _Life, snapshots: Snapshots) -> Sandboxes:
    return Sandboxes(
        engine=on.engine, store=on.store, clock=on.clock, tokens=on.tokens, live=on.live,
        elsewhere=Elsewhere(server_id=on.server_id, store=on.store), starting=life.starting, ending=life.ending,
        watches=life.watches, pausing=life.pausing, resuming=life.resuming, snapshots=snapshots,
        activity=on.activity,
        forking=Forking(
            engine=on.engine, store=on.store, checkpoints=life.checkpoints, copying=_copying(on, life),
            envs=_guest_envs(on), starting=life.starting, work=on.work, meters=on.meters,
        ),
    )  # fmt: skip


def _build_waking(on: _Grounds, life: _Life) -> Waking:
    return Waking(
        server_id=on.server_id, store=on.store, live=on.live, resuming=life.resuming, activity=on.activity,
        audit=on.audit,
    )  # fmt: skip


def _build_observations(on: _Grounds, life: _Life) -> Observations:
    return Observations(
        engine=on.engine, store=on.store, clock=on.clock, live=on.live, activity=on.activity, journals=life.journals
    )  # fmt: skip


def _build_health(on: _Grounds) -> GuestHealth:
    return GuestHealth(
        guest=on.guest, store=on.store, clock=on.clock, live=on.live, standstills=on.standstills, meters=on.meters
    )


def _build_snapshots(on: _Grounds, life: _Life) -> Snapshots:
    return Snapshots(
        engine=on.engine, store=on.store, clock=on.clock, ids=on.ids, checkpoints=life.checkpoints,
        copying=_copying(on, life), work=on.work, meters=on.meters,
    )  # fmt: skip


def _guest_envs(on: _Grounds) -> GuestEnvs:
    return GuestEnvs(guest=on.guest, live=on.live, standstills=on.standstills)


def _copying(on: _Grounds, life: _Life) -> Copying:
    return Copying(engine=on.engine, store=on.store, checkpoints=life.checkpoints, standstills=on.standstills)


def _build_volumes(settings: Settings, on: _Grounds) -> Volumes:
    return Volumes(
        server_id=on.server_id, engine=on.engine, store=on.store, clock=on.clock, ids=on.ids, tokens=on.tokens,
        work=on.work, default_mb=settings.volume_mb,
    )  # fmt: skip


def _build_secrets(settings: Settings, on: _Grounds) -> Secrets:
    keyring = load_keyring(settings.secrets_key, settings.secrets_key_file, settings.own_secrets_key)
    return Secrets(store=on.store, clock=on.clock, ids=on.ids, keyring=keyring)
