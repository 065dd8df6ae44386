"""Every limit of the server, by name, with its unit and the reason for its value.

Limits that a project can have for itself (sandboxes at once, longest life, largest size) are defaults here
and fields of `model.project.ProjectLimits`.
"""

# --- life of a sandbox -------------------------------------------------------------------------------------
DEFAULT_TIMEOUT_V2_S = 300
"""Seconds a sandbox lives when `POST /v2/sandboxes` names no timeout (wire contract 2.2)."""
DEFAULT_TIMEOUT_V1_S = 15
"""Seconds for the older `POST /sandboxes` (wire contract 2.2)."""
REFRESH_DEFAULT_S = 15
"""Seconds that a refresh without a duration asks for (wire contract 6.1.12)."""
REFRESH_MAX_S = 3600
"""Longest refresh in seconds (wire contract 6.1.12)."""
DEADLINE_SLACK_S = 1.0
"""A deadline is enforced within this many seconds of its time."""

# --- one sandbox -------------------------------------------------------------------------------------------
DEFAULT_CPU_COUNT = 2
DEFAULT_MEMORY_MB = 1024
DEFAULT_DISK_MB = 2048
DEFAULT_PIDS = 1024
"""Processes and threads of one sandbox; enough for a browser or a parallel build, far below the host's."""
MIN_CPU_COUNT = 1
MIN_MEMORY_MB = 128
"""MiB; below this Node and the daemon inside do not fit together."""
MIN_DISK_MB = 64
"""MiB; a file system of less than this is mostly its own metadata."""
MAX_ENV_ENTRIES = 512
MAX_ENV_BYTES = 128 * 1024
"""Bytes of all names and values together; the kernel's own limit for one string is 128 KiB."""
MAX_METADATA_ENTRIES = 64
MAX_METADATA_BYTES = 16 * 1024
"""Bytes of all keys and values together; they are copied into every list answer."""
MAX_NETWORK_RULES = 128
"""Entries of allowOut and of denyOut each; every one becomes an element of a kernel set."""
MAX_OPEN_FILES = 65_536
"""RLIMIT_NOFILE inside; gVisor and Linux both handle it, more is only good for exhaustion."""
MAX_TERMINALS = 256
"""Pseudo-terminals of one sandbox under crun: the kernel has 3,072 for all of a machine (kernel.pty.max)."""
CONNECTIONS_MAX = 4096
"""Connections that one sandbox may have open through the host."""
CONNECTIONS_SHARE = 64
"""Part of the table in which the host's kernel remembers connections that one sandbox may have, if that is less."""
CONNECTIONS_RENEWAL_S = 32
"""Seconds in which it may open as many anew: those that are closed are no longer counted, but remembered for 120 s."""
CONNECTIONS_BURST = 2
"""Times as many may be opened at once. All told, open and closed, one sandbox has a tenth of the table at most."""

# --- one project -------------------------------------------------------------------------------------------
PROJECT_MAX_SANDBOXES = 200
PROJECT_MAX_LIFETIME_S = 24 * 3600
PROJECT_MAX_CPU_COUNT = 8
PROJECT_MAX_MEMORY_MB = 8192
PROJECT_MAX_DISK_MB = 20_480
PROJECT_MAX_KEYS = 100
PROJECT_MAX_SNAPSHOT_MB = 51_200
"""MiB on disk of all paused sandboxes and snapshots; the next pause or snapshot beyond it is refused."""
PROJECT_PAUSED_DAYS = 30
"""Days that a sandbox may stay paused on disk; then it ends, and the log says so."""

PROJECT_MAX_SECRETS = 1000
PROJECT_MAX_VOLUMES = 100
PROJECT_MAX_VOLUME_MB = 512_000
"""MiB of all volumes of a project together, by their sizes, not by what is in them."""

# --- volumes -----------------------------------------------------------------------------------------------
MIN_VOLUME_MB = 16
"""MiB; below this a file system is mostly its own journal."""
VOLUME_MOUNTS_MAX = 16
"""Volumes of one sandbox."""
VOLUME_MOUNT_PATH_MAX = 1024
"""Bytes of the place where a volume is mounted."""
VOLUME_PATH_MAX = 4000
"""Bytes of a path in a volume; the kernel takes 4095, and some are ours."""
VOLUME_ID_MAX = 65_535
"""Largest uid and gid: those that every sandbox has."""
VOLUME_MODE_MAX = 0o1777
"""Permission bits and the sticky bit; set-id bits mean nothing on a volume, and could only mislead."""
VOLUME_ENTRIES_MAX = 10_000
"""Entries of one list, about 3 MiB of JSON."""
VOLUME_DEPTH_MAX = 256
"""Directories above each other in a path, and levels of one list."""
VOLUME_CALLS_AT_ONCE = 64
"""Calls at work on the files of one volume; each transfer holds two chunks of memory."""
VOLUME_CHUNK_BYTES = 1024 * 1024
"""Bytes read or written at once."""
VOLUME_STALL_S = 60.0
"""Seconds that an upload may stand still."""
VOLUME_IDLE_S = 20.0
"""Seconds that a volume stays mounted when nobody uses it: the next call is 20 ms faster."""

# --- secrets -----------------------------------------------------------------------------------------------
SECRET_VALUE_BYTES = 64 * 1024
"""Bytes of one value (wire contract 6.3.3)."""
SECRET_BODY_BYTES = 512 * 1024
"""Bytes of one request body: a longest value, each character escaped, and its metadata (wire contract 6.3.3)."""
SECRET_VERSIONS_KEPT = 16
"""Values kept of one secret, the newest; older ones are deleted with the next."""
RESEAL_BATCH = 100
"""Values read at once when they are brought under a new key."""

# --- the API -----------------------------------------------------------------------------------------------
MAX_BODY_BYTES = 1024 * 1024
"""Bytes of one REST request body; the largest legal one (environment and metadata) is far smaller."""
PAGE_MAX = 100
"""Rows of one page of any list (wire contract 2.1)."""
LOG_PAGE_DEFAULT = 1000
LOG_PAGE_MAX = 1000
MAX_TEXT_FIELD = 2048
"""Characters of a template reference, a mask host or another short text in a request."""
IDEMPOTENCY_KEY_MAX = 255
IDEMPOTENCY_TTL_S = 24 * 3600
"""Seconds for which a repeated Idempotency-Key finds the first answer."""
METRICS_BATCH_MAX = 100
"""Sandbox ids in one batch metrics call (wire contract 6.3.2)."""

# --- work in progress --------------------------------------------------------------------------------------
CREATES_BESIDE = 1
"""Sandboxes being started at the same time beside one for each processor; more only makes each of them later."""
CREATES_WAITING = 1000
"""Creates that may queue for a start; beyond that the answer is 503."""
CREATE_DEADLINE_S = 50.0
"""Seconds from accepted to running; the client's own request timeout is 60. What starts from a checkpoint, or from
its template's memory, has longer: `CHECKPOINT_DEADLINE_S`."""
GUEST_BOOT_DEADLINE_S = 20.0
"""Seconds from the start of the runtime to the guest's first answer; normally 0.02 to 0.2."""
GUEST_CALL_DEADLINE_S = 5.0
"""Seconds for one control call to a guest."""
GUEST_ANSWER_MAX_BYTES = 4 * 1024 * 1024
"""Bytes that the server reads of a guest's answer to a control call: the guest is not trusted."""
MEMORY_RELIEF_DEADLINE_S = 15.0
"""Seconds that a sandbox at its memory limit gets to end processes; then it is ended. Normally 0.1."""
MEMORY_SETTLE_PAUSE_S = 0.02
MEMORY_SETTLE_LOOKS = 25
"""Looks, that many seconds apart, whether the memory of what was ended has come back, before more is ended."""
MEMORY_RESERVE_MB = 512
"""MiB of the machine's memory that stay available: for the server, the kernel, and what runs already."""
KILL_DEADLINE_S = 15.0
"""Seconds for a runtime to kill and delete a sandbox before the engine calls it failed."""
ENDS_AT_ONCE = 16
"""Sandboxes ended at the same time when all of them are."""
RECOVERIES_AT_ONCE = 16
"""Sandboxes taken over at the same time, after a start or because something broke off; one may take minutes."""
STOP_DRAIN_S = 10.0
"""Seconds that requests under way get when the server stops; what is not done by then is broken off and undone."""
STOP_ALL_DEADLINE_S = 120.0
"""Seconds to end all sandboxes when the server was asked to take them with it; what is left, the next one finishes."""

# --- whether guests answer ---------------------------------------------------------------------------------
HEALTH_PERIOD_S = 4.0
"""Seconds between two questions to a guest whether it still answers."""
HEALTH_CALLS_AT_ONCE = 64
"""Guests asked at the same time; each silent one holds a place for `GUEST_CALL_DEADLINE_S`."""
HEALTH_MISSES = 3
"""Questions in a row without an answer before a guest counts as unresponsive."""
HEALTH_SILENCE_S = 12.0
"""Seconds that these misses must span: a guest that merely waits for its turn on a crowded machine answers sooner."""
HEALTH_PULSE_S = 0.5
"""Seconds between two looks whether this server itself gets its turn."""
HEALTH_LATENESS_S = 0.5
"""Seconds that the server may be late by; after more, the questions it had open say nothing about the guests."""

# --- sleep -------------------------------------------------------------------------------------------------
CHECKPOINT_DEADLINE_S = 300.0
"""Seconds to write or read the images of one checkpoint: 8 GiB at a slow disk's 30 MiB/s. Normally 0.1 to 2."""
CHECKPOINTS_AT_ONCE = 4
"""Checkpoints that are being written; the sandboxes of others run on. More would share one disk."""
CHECKPOINT_TURN_S = 120.0
"""Seconds to wait for such a place; after that, what has come to its deadline is frozen, and other calls are told."""
CHECKPOINT_SPARE_BYTES = 256 * 1024 * 1024
"""Bytes of the state folder's disk that no checkpoint takes: running sandboxes write there, and the database."""
FREEZE_DEADLINE_S = 10.0
"""Seconds for all processes of a sandbox to stand still, or to go on; normally 0.01 to 0.03."""

# --- template builds ---------------------------------------------------------------------------------------
PROJECT_MAX_TEMPLATES = 1000
PROJECT_MAX_BUILDS = 20
"""Builds of one project that are registered and not finished."""
TEMPLATE_MAX_TAGS = 100
TEMPLATE_BUILDS_KEPT = 100
"""Finished builds of one template that lists still show; those that a tag names are kept on top."""
BUILD_LOG_LINES = 20_000
"""Lines of one build's log; what a build says beyond that is dropped, and the log says so."""
BUILD_LINE_MAX = 4096
"""Characters of one line of a build's log."""
BUILD_STEP_DEADLINE_S = 3600.0
"""Seconds of one step: an hour, as the reference gives it (wire contract 6.1.8)."""
BUILD_BAKE_DEADLINE_S = 900.0
"""Seconds for reading a tree out of its sandbox and packing it; 10 GiB on a slow disk."""
BUILD_DISK_MB = 10_240
"""MiB of disk of a sandbox that a build runs in, or the template's own if that is more. Only what is written counts."""
BUILD_STEP_LINES = 10_000
"""Lines that one step may add to the log."""
BUILD_READY_DEADLINE_S = 600.0
"""Seconds that a ready command may go on failing (wire contract 2.3)."""
BUILD_READY_PAUSE_S = 2.0
"""Seconds between two tries of it."""
SERVICES_READY_PAUSE_S = 0.1
"""Seconds between two tries when a sandbox boots that somebody waits for."""
BUILD_START_WAIT_S = 20.0
"""Seconds that a start command without a ready command gets (wire contract 2.3)."""
SERVICES_DEADLINE_S = 40.0
"""Seconds that the services of a template get when somebody waits for a sandbox that boots; a create has 50 in all.
Where nobody waits, as when a built-in template's memory is taken, they get BUILD_READY_DEADLINE_S."""
BUILD_TREE_ENTRIES = 1_000_000
"""Files and folders of one template; a Debian with a desktop has 150,000."""
BUILD_TREE_DEPTH = 128
"""Folders in each other; the packer of images goes one call deeper for each."""
LAYERS_KEPT_MB = 20_480
"""MiB on disk of the layers that builds have left for the next ones; those not used for longest go first."""
LAYERS_KEPT_S = 14 * 24 * 3600
"""Seconds that a layer nobody used stays."""
IMAGES_KEPT_MB = 20_480
"""MiB on disk of finished images that nothing stands on; those not used for longest go first."""
IMAGES_KEPT_S = 14 * 24 * 3600
"""Seconds that such an image stays unused."""
PRUNE_KEPT_S = 3600
"""Seconds that an image or a layer which was just used stays also when an operator wants all else gone, or the disk is
full of them: somebody may be about to start from it."""
BUILD_LOG_PERIOD_S = 0.2
"""Seconds between two batches of lines that a build has said: clients ask as often."""
BUILD_MAX_STEPS = 1000
BUILDS_AT_ONCE = 2
"""Builds of all projects that run at the same time; each takes a sandbox of its own and much disk."""
BUILDS_WAITING = 50
"""Builds that may wait in line for a place; beyond that the answer is 503."""
BUILD_DEADLINE_S = 4 * 3600.0
"""Seconds from a build's place to its end."""
BUILD_START_S = 24 * 3600
"""Seconds for a client to start a build that it has registered: its uploads come in between."""
BUILD_SWEEP_S = 600.0
"""Seconds between two looks for builds that were never started, and for uploads, layers and images that nobody uses."""
UPLOAD_MAX_BYTES = 2 * 1024 * 1024 * 1024
"""Bytes of one uploaded archive, as it comes, compressed or not."""
UPLOAD_LINK_S = 3600
"""Seconds for which a link for an upload is good: clients give up on an upload after as many."""
UPLOAD_SILENCE_S = 60.0
"""Seconds without a byte after which an upload is broken off."""
UPLOADS_AT_ONCE = 16
TEMPLATE_UPLOAD_BYTES = 4 * 1024 * 1024 * 1024
"""Bytes of all uploaded archives of one template."""
UPLOAD_KEPT_S = 7 * 24 * 3600
"""Seconds that an archive stays which no build asked for."""

# --- servers that share a database ---------------------------------------------------------------------------
WISH_PERIOD_S = 1.0
"""Seconds between two looks of a server for what others wish of its sandboxes: an end, another deadline."""
WISH_DEADLINE_S = 30.0
"""Seconds that a kill waits for the server that has the sandbox: longer than it takes to count that one as away."""
SERVER_BEAT_S = 2.0
"""Seconds between two heartbeats of a server, and between its looks at those of the others."""
SERVER_LOOKS_BEFORE_AWAY = 8
"""Looks at one and the same heartbeat before its server counts as away: it has missed seven then."""
BACKUP_DEADLINE_S = 3600
"""Seconds for pg_dump; rows are small, and a day's are kept."""

# --- the warm pool -----------------------------------------------------------------------------------------
POOL_PERIOD_S = 2.0
"""Seconds between two looks at the pool when nothing is claimed."""
POOL_REST_S = 60.0
"""Seconds that a kind of which no spare could be started is left alone: others come first, and it costs a start."""
POOL_MEMORY_S = 600.0
"""Seconds for which the pool remembers what was asked for: long enough for a loop of an agent to come round."""
POOL_BURST_S = 2.0
"""Creates within so many seconds are one burst: the time in which the pool cannot refill itself by much."""
POOL_BURST_REMEMBERED = 256
"""Creates remembered of one kind; above what any budget keeps ready."""
POOL_KINDS_REMEMBERED = 64
"""Kinds (template, runtime, sizes) remembered; a caller chooses sizes, so there is no end to them."""
POOL_QUIET_S = 0.5
"""Seconds without a create before the pool is filled up: starting a spare takes all processors of a small machine."""
POOL_RUSH_S = 5.0
"""Seconds that creates in a row can hold that up."""
POOL_CLAIM_DEADLINE_S = 2.0
"""Seconds that a claimed spare has to take its identity, normally 0.005; after that the caller gets a new sandbox."""
POOL_MEMORY_RESERVE_MB = 1024
"""MiB of the machine's memory that must be available; below it the pool is drained."""

# --- sleep and copies --------------------------------------------------------------------------------------
RESUMES_IN_FLIGHT = 8
"""Sandboxes being read back from disk at the same time; more only makes each of them later. A thaw waits for none."""
AUTO_RESUME_FLOOR_S = 300
"""Least seconds that a sandbox woken by traffic lives (wire contract 6.1.7)."""
WAKE_DEADLINE_S = 60.0
"""Seconds that a request waits for the sandbox that it wakes (wire contract 6.1.7)."""
CHANGE_TRIES = 3
"""Times that a call looks again at a sandbox which fell asleep or woke under it (wire contract 6.1.7)."""
FORK_DEFAULT_TIMEOUT_S = 15
"""Seconds that a copy lives when `fork` names no timeout (wire contract 2.2)."""
FORK_MAX = 20
"""Copies of one fork (wire contract S19)."""

# --- the idle ladder ---------------------------------------------------------------------------------------
IDLE_PERIOD_S = 2.0
"""Seconds between two looks for sandboxes that have been idle for long enough."""
IDLE_MAX_S = 31 * 86_400
"""Longest idleness before a step; what waits longer can as well leave it out."""
IDLE_CPU_PCT = 2.0
"""Per cent of one processor; a sandbox that uses more is at work, though nobody talks to it."""
IDLE_DISK_AGAIN_S = 60.0
"""Seconds until an idle sandbox is written to disk again when that failed; it has to run for each try."""
IDLE_STEPS_AT_ONCE = 4
"""Sandboxes put a step deeper at the same time: writing them to disk is for quiet hours."""

# --- observation -------------------------------------------------------------------------------------------
METRICS_PERIOD_S = 5.0
METRICS_KEPT_PER_SANDBOX = 17_280
"""Samples kept for a sandbox: one day at one sample every 5 s."""
DENIALS_PERIOD_S = 15.0
"""Seconds between two counts of refused packets: a flooding sandbox costs four lines of the audit log a minute."""
LOGS_KEPT_PER_SANDBOX = 10_000
"""Log rows kept for a sandbox; older ones are dropped first."""
LOG_MESSAGE_MAX = 4096
"""Characters of one log message; a sandbox writes them, so they are cut."""
GONE_KEPT_S = 24 * 3600
"""Seconds that the row and the logs of a sandbox stay after its end."""
GUEST_LOG_BATCH = 500
"""Log entries fetched from one guest in one call."""

# --- the gateway -------------------------------------------------------------------------------------------
GATEWAY_CONNECTIONS_PER_SANDBOX = 1000
"""Requests and WebSockets open to one sandbox at once; beyond that the answer is 429."""
GATEWAY_IDLE_S = 610.0
"""Seconds without a byte before the gateway closes a relay; shorter than the guest's 640 (contract 6.1.4)."""
GATEWAY_CONNECT_DEADLINE_S = 10.0
GATEWAY_HEADER_BYTES = 64 * 1024
"""Bytes of one request's head."""
GATEWAY_CHUNK_BYTES = 256 * 1024
"""Bytes read at once from either side; smaller ones cost throughput (design: 256 KiB or more)."""
GATEWAY_WRITE_BUFFER_BYTES = 512 * 1024
"""Bytes waiting for a slow peer before the other side is no longer read; two chunks, so that both sides stay busy."""
GATEWAY_LINE_BYTES = 32 * 1024
"""Bytes of a request line; a signed URL with a longest path (4,096), all percent-encoded, takes half of it."""
GATEWAY_FIELD_BYTES = 16 * 1024
"""Bytes of one header field; what browsers send as cookies stays below."""
GATEWAY_FIELDS_MAX = 128
"""Header fields of one message."""
GATEWAY_HEAD_DEADLINE_S = 30.0
"""Seconds from a new connection (TLS handshake included), or the first byte of a later request, to its whole head."""
GATEWAY_KEEPALIVE_S = 620.0
"""Seconds an idle client connection is kept: longer than the SDKs' pools (300), so that they close first."""
GATEWAY_CLIENT_CONNECTIONS = 10_000
"""Client connections open at once; each costs a descriptor and, at worst, two chunks of memory."""
GATEWAY_LINGER_S = 5.0
"""Seconds of a request body that are still read and dropped after an early answer, so that the client sees it."""
GATEWAY_END_NEWS_S = 1.0
"""Seconds an unanswered call to a guest waits for the news that its sandbox ended, before the answer is blamed."""
GATEWAY_POOL_PER_SANDBOX = 32
"""Idle connections kept to one guest; the SDKs run a few calls at once, and a burst may dial anew."""
GATEWAY_POOL_IDLE_S = 60.0
"""Seconds an idle connection to a guest is kept; far below the guest's own 640."""
GATEWAY_API_POOL_IDLE_S = 2.0
"""Seconds an idle connection to the API is kept; below uvicorn's 5, so that it is never the API that closes."""
GATEWAY_DIAL_BACKOFF_S = (0.1, 0.2)
"""Pauses between tries to reach a user port: hides the start of a server that was only just launched."""
GATEWAY_TUNNEL_HEAD_BYTES = 8 * 1024
"""Bytes of the guest's answer to a tunnel request: the guest is not trusted."""
GATEWAY_INTERIM_MAX = 16
"""1xx answers skipped before the real one."""
GATEWAY_SWEEP_S = 5.0
"""Seconds between two looks for idle relays and pooled connections."""
GATEWAY_STOP_GRACE_S = 2.0
"""Seconds that open relays get to finish when the gateway stops."""
GATEWAY_BACKLOG = 1024
"""Connections that wait in the kernel to be accepted."""
GATEWAY_AUTHORITY_DAYS = 3650
"""Days the own certificate authority is good for: clients have to be told about every new one."""
GATEWAY_CERTIFICATE_DAYS = 365
"""Days the server's certificate is good for; Apple's clients refuse more than 825, browsers 398."""
GATEWAY_RENEW_DAYS = 30
"""Days before its end that a certificate is replaced."""
GATEWAY_CERTIFICATE_CHECK_S = 24 * 3600
"""Seconds between two looks at the certificate's end."""
GATEWAY_SIGNED_PATH_MAX = 4096
"""Bytes of the path in a signed URL (PATH_MAX); it is hashed once for every live sandbox."""

# --- the audit log -----------------------------------------------------------------------------------------
AUDIT_FILE_BYTES = 16 * 1024 * 1024
"""Bytes after which the next file begins; about 35,000 records."""
AUDIT_FILES_KEPT = 64
"""Files kept, so 1 GiB at most; the oldest go first, and the checkpoint says where the chain now begins."""
AUDIT_QUEUE = 10_000
"""Events waiting to be written; beyond that changes are refused and the rest is counted."""
AUDIT_BATCH = 1000
"""Records written at once."""
AUDIT_SYNC_S = 0.25
"""Seconds after which what was written is on the disk, and in the checkpoint: what a power cut can take."""
AUDIT_RECORD_DEADLINE_S = 5.0
"""Seconds an answer waits for its record; longer means a sick disk, and the next change is refused."""
AUDIT_RETRY_S = 1.0
"""Seconds between two tries to write while the disk refuses."""
AUDIT_SUMMARY_S = 60.0
"""Seconds over which repeated refusals are counted."""
AUDIT_SUMMARY_FIRST = 20
"""Refusals of one group that are written one by one before they are only counted."""
AUDIT_SUMMARY_GROUPS = 1000
"""Groups that are counted apart; what comes beyond shares one number."""
AUDIT_TEXT_MAX = 256
"""Characters of one text in a record."""
AUDIT_DETAILS_MAX = 16
"""Details of one record."""
AUDIT_TORN_MAX = 200
"""Characters of a torn line that its repair keeps, as they are after escaping."""

# --- traces ------------------------------------------------------------------------------------------------
TRACE_QUEUE = 2048
"""Spans waiting to be sent; what comes beyond is dropped, never waited for."""
TRACE_EXPORT_PERIOD_S = 2
"""Seconds between two deliveries of spans."""
TRACE_EXPORT_DEADLINE_S = 5.0
"""Seconds for one delivery, tries included."""

# --- the server's log --------------------------------------------------------------------------------------
LOG_FILE_BYTES = 16 * 1024 * 1024
"""Bytes after which the log file is put aside and a new one begins."""
LOG_FILES_KEPT = 5
"""Older log files kept beside it."""

# --- images from registries --------------------------------------------------------------------------------
IMAGE_REFERENCE_MAX = 512
"""Characters of an image's name; registries allow 255 for the path."""
IMAGE_MANIFEST_BYTES = 4 * 1024 * 1024
"""Bytes of one manifest or configuration: what registries take."""
IMAGE_LAYERS = 128
"""Layers of one image; builders stop at 127."""
IMAGE_COMPRESSED_BYTES = 10 * 1024**3
"""Bytes of all layers as they are fetched."""
IMAGE_BYTES = 20 * 1024**3
"""Bytes of all layers unpacked: what a sandbox's largest disk holds."""
IMAGE_FILES = 1_000_000
"""Entries of all layers together; a large one (a browser, CUDA, two languages) has 200,000."""
IMAGE_RATIO = 100
"""Times that a layer may be larger than its compressed form; text reaches 10, gzip's end is 1,030."""
IMAGE_RATIO_FREE_BYTES = 256 * 1024**2
"""Bytes that a layer may have whatever its ratio: a preallocated file of zeros is no bomb."""
IMAGE_PATH_BYTES = 3072
"""Bytes of one path in an image; the kernel takes 4,095, and the tools put folders of their own before it."""
IMAGE_PATH_DEPTH = 128
"""Folders in one path; `node_modules` comes to 30."""
IMAGE_ID_MAX = 65_535
"""Highest user and group id in an image: a sandbox has ids from 0 to this."""
IMAGE_DEADLINE_S = 1800.0
"""Seconds for one image from its name to the finished file: 10 GiB at 10 MiB/s, then unpacked."""
IMAGE_RESOLVE_DEADLINE_S = 60.0
"""Seconds until a registry has said what a name stands for."""
IMAGE_LOGIN_DEADLINE_S = 20.0
"""Seconds for a cloud to exchange its keys for a login."""
IMAGE_LOGIN_BYTES = 64 * 1024
"""Bytes of its answer; a token has 2,000."""
IMAGE_MEMORY_MB = 6144
"""MiB of memory of each tool that unpacks or packs an image; mkfs.erofs takes 5 KiB for each of its files."""
IMAGE_FETCHES = 2
"""Images being fetched at the same time; others wait."""
IMAGE_CONNECTIONS = 32
"""Connections that one fetch may have open."""
IMAGE_DIAL_DEADLINE_S = 20.0
"""Seconds to reach one address of a registry."""
IMAGE_REPORT_BYTES = 1024 * 1024
"""Bytes of one line that the cell of an image says."""
IMAGE_REPORT_LINES = 2000
"""Lines that the cell of an image says; it has a few for each layer."""
