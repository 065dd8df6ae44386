"""Every error that Warren raises on purpose.

WarrenError
├── BadRequest                 bad_request                 the caller must change the request
│   ├── InvalidTimeout         invalid_timeout
│   ├── InvalidNetworkRule     invalid_network_rule
│   ├── InvalidPageToken       invalid_page_token
│   ├── BuildNotFound          build_not_found             400 by the wire contract, not 404
│   ├── TemplateInUse          template_in_use             likewise
│   └── ResourceTooLarge       resource_too_large
├── Unauthenticated            unauthenticated             no key, or one that is not known
├── Forbidden                  forbidden
├── NotFound                   not_found                   not there, or not yours: one and the same
│   ├── SandboxNotFound        sandbox_not_found
│   ├── TemplateNotFound       template_not_found
│   ├── CheckpointNotFound     checkpoint_not_found
│   ├── SecretNotFound         secret_not_found
│   ├── VolumeNotFound         volume_not_found
│   ├── PathNotFound           path_not_found
│   └── KeyNotFound            key_not_found
├── Conflict                   conflict                    the state does not allow it now
│   ├── SandboxChanging        sandbox_changing
│   ├── SandboxPaused          sandbox_paused
│   ├── CheckpointUnusable     checkpoint_unusable
│   ├── GuestSilentAtPause     sandbox_snapshot_guest_agent_unresponsive
│   ├── VolumeInUse            volume_in_use
│   ├── IdempotencyInFlight    idempotency_in_flight
│   └── AlreadyExists          already_exists
├── IdempotencyMismatch        idempotency_mismatch        same key, another body
├── LimitReached               limit_reached               a quota of the project
├── NotSupported               not_supported               known to the contract, not to this server
├── Unavailable                unavailable                 try again later
│   ├── NoCapacity             sandbox_capacity_unavailable
│   ├── NoSpace                no_space
│   ├── ServicesNotReady       sandbox_services_not_ready  a template's start command takes too long
│   ├── GuestSilent            guest_silent
│   ├── ServerAway             server_away                 another server has the sandbox
│   ├── Busy                   busy
│   └── AuditUnavailable       audit_unavailable           no change without a record of it
├── Timeout                    timeout                     a deadline passed
│   └── PlacementTimeout       sandbox_placement_timeout
├── BuildFailed                build_failed                a step of a template build; kept in the build's status
└── EngineFailed               sandbox_create_failed       the runtime or the guest broke its promise

`code` is API: clients may match on it, and it never changes. The message begins with "cannot", says what was
wrong and what to do. `api/error_mapping.py` turns each class into a status; a test proves that table total.
"""


class WarrenError(Exception):
    """Base of all errors that carry a machine-readable `code`."""

    code = "internal_error"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "cannot do that").strip().splitlines()[0])

    @property
    def message(self) -> str:
        return str(self.args[0])


class BadRequest(WarrenError):
    """cannot read the request; correct it and send it again"""

    code = "bad_request"


class InvalidTimeout(BadRequest):
    """cannot use that timeout; give whole seconds within the project's limit"""

    code = "invalid_timeout"


class InvalidNetworkRule(BadRequest):
    """cannot use that network rule"""

    code = "invalid_network_rule"


class InvalidPageToken(BadRequest):
    """Invalid next token"""

    code = "invalid_page_token"


class BuildNotFound(BadRequest):
    """cannot find that build of that template"""

    code = "build_not_found"


class TemplateInUse(BadRequest):
    """cannot delete the template: running or paused sandboxes use it; end them first"""

    code = "template_in_use"


class ResourceTooLarge(BadRequest):
    """cannot give a sandbox that much; ask for less or raise the project's limit"""

    code = "resource_too_large"


class Unauthenticated(WarrenError):
    """cannot tell who is asking; send a valid API key in the X-API-KEY header"""

    code = "unauthenticated"


class Forbidden(WarrenError):
    """cannot do that with this key"""

    code = "forbidden"


class NotFound(WarrenError):
    """cannot find that, or it is not yours"""

    code = "not_found"


class SandboxNotFound(NotFound):
    """cannot find that sandbox, or it is not yours"""

    code = "sandbox_not_found"

    @classmethod
    def of(cls, sandbox_id: str) -> "SandboxNotFound":
        """The one text for "not there" and "not yours": clients match on it (wire contract 2.2)."""
        return cls(f"Sandbox \"{sandbox_id}\" doesn't exist or you don't have access to it")


class TemplateNotFound(NotFound):
    """cannot find that template, or it is not yours"""

    code = "template_not_found"


class CheckpointNotFound(NotFound):
    """cannot start from that checkpoint: it is not on this machine's disk any more"""

    code = "checkpoint_not_found"


class VolumeNotFound(NotFound):
    """cannot find that volume, or it is not yours"""

    code = "volume_not_found"

    @classmethod
    def of(cls, reference: str) -> "VolumeNotFound":
        return cls(f"cannot find volume {reference!r}, or it is not yours")


class PathNotFound(NotFound):
    """cannot find that path in the volume"""

    code = "path_not_found"


class SecretNotFound(NotFound):
    """cannot find that secret, or it is not yours"""

    code = "secret_not_found"


class KeyNotFound(NotFound):
    """cannot find that API key"""

    code = "key_not_found"


class Conflict(WarrenError):
    """cannot do that in the present state"""

    code = "conflict"


class SandboxChanging(Conflict):
    """cannot do that while the sandbox is changing state; try again in a moment"""

    code = "sandbox_changing"


class SandboxPaused(Conflict):
    """cannot do that with a paused sandbox; resume it first"""

    code = "sandbox_paused"


class CheckpointUnusable(Conflict):
    """cannot restore the memory of this checkpoint; start from its files alone (memory: false)"""

    code = "checkpoint_unusable"


class GuestSilentAtPause(Conflict):
    """cannot restore the memory of a sandbox whose guest did not answer when it was paused"""

    code = "sandbox_snapshot_guest_agent_unresponsive"


class VolumeInUse(Conflict):
    """cannot delete a volume that sandboxes have; kill those first"""

    code = "volume_in_use"


class IdempotencyInFlight(Conflict):
    """cannot answer yet: the first request with this Idempotency-Key is still being worked on"""

    code = "idempotency_in_flight"


class AlreadyExists(Conflict):
    """cannot create it: one with that name exists"""

    code = "already_exists"


class IdempotencyMismatch(WarrenError):
    """cannot reuse this Idempotency-Key for a different request; choose a new key"""

    code = "idempotency_mismatch"


class LimitReached(WarrenError):
    """cannot go above the project's limit"""

    code = "limit_reached"


class NotSupported(WarrenError):
    """cannot do that: this server does not support it"""

    code = "not_supported"


class Unavailable(WarrenError):
    """cannot serve this now; try again later"""

    code = "unavailable"


class NoCapacity(Unavailable):
    """cannot place another sandbox on this machine; kill some, or try again later"""

    code = "sandbox_capacity_unavailable"


class ServicesNotReady(Unavailable):
    """cannot start the sandbox: its template's services are not up in time; try again later"""

    code = "sandbox_services_not_ready"


class NoSpace(Unavailable):
    """cannot keep that: the disk of the state folder is full; free some space, then try again"""

    code = "no_space"


class GuestSilent(Unavailable):
    """cannot pause the sandbox: its guest does not answer; it goes on running"""

    code = "guest_silent"


class ServerAway(Unavailable):
    """cannot reach that sandbox from here: another server has it; send the request there"""

    code = "server_away"


class Busy(Unavailable):
    """cannot take more work at the moment; try again later"""

    code = "busy"


class AuditUnavailable(Unavailable):
    """cannot change anything now: the audit log cannot be written; see the server's log"""

    code = "audit_unavailable"


class Timeout(WarrenError):
    """cannot finish in time"""

    code = "timeout"


class PlacementTimeout(Timeout):
    """cannot start the sandbox in time; try again later"""

    code = "sandbox_placement_timeout"


class EngineFailed(WarrenError):
    """cannot run the sandbox: the runtime failed; the server's log has its words"""

    code = "sandbox_create_failed"


class BuildFailed(WarrenError):
    """cannot build the template; its log says why

    `step` is the step that failed: "base", "finalize" or the 1-based number of a step as text.
    """

    code = "build_failed"

    def __init__(self, message: str | None = None, step: str | None = None) -> None:
        super().__init__(message)
        self.step = step
