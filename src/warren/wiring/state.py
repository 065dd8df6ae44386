"""What the state folder holds, opened: the store, the audit log, images, the key of this machine's root."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from warren import durable
from warren.audit.chain import Chain
from warren.audit.folder import AuditFolder
from warren.audit.log import AuditLog
from warren.contracts.audit import Audit
from warren.contracts.building import ImageSource
from warren.contracts.store import Store
from warren.control.clock import SystemClock, SystemIds
from warren.control.keys import Keys
from warren.control.templates import TemplateFiles
from warren.gateway.certificates import TlsFiles, ensure_certificates, given_certificates
from warren.images.registries import parse_registries
from warren.images.source import OciImages
from warren.model.audit import Event, Kind, Outcome
from warren.model.errors import Unauthenticated
from warren.settings import Settings
from warren.store.sql import SqlStore

LOCAL_KEY = "local-key"
"""File of the state folder with the key that this machine's root uses; made at first start, mode 0600."""


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
