"""What Warren must withstand, one row each. A test says which rows it shows with `@pytest.mark.threat("A1")`."""

from dataclasses import dataclass

RUNTIMES = ("runsc", "crun")

PARTS = {
    "A": "Out of the sandbox",
    "B": "Across the network",
    "C": "Resources",
    "D": "Identity and state",
    "E": "When things break",
    "F": "What was decided",
}


@dataclass(frozen=True, slots=True)
class Row:
    """attempt: what the attacker tries. control: what stops him."""

    attempt: str
    control: str


ROWS = {
    "A1": Row("see, signal or trace processes of the host; their roots and environments", "own pid namespace"),
    "A2": Row(
        "mount, remount, pivot_root, unshare, setns, chroot and out again, open_by_handle_at",
        "seccomp and no CAP_SYS_ADMIN (crun); the sentry's own mounts and namespaces (gVisor)",
    ),
    "A3": Row(
        "release_agent, core_pattern, modprobe, binfmt_misc, uevent_helper, sysrq, kcore, kmsg, pressure",
        "masked and read-only, and root inside owns none of it (crun); gVisor's own, the host's never change",
    ),
    "A4": Row(
        "nodes of disks, loop devices, memory, FUSE, tun, KVM; the console",
        "`/dev` is made by us, no CAP_MKNOD, no node works on an idmapped layer, device cgroup (crun)",
    ),
    "A5": Row(
        "bpf, perf_event_open, keyctl, userfaultfd, io_uring, kexec, modules, clocks, quotas, odd socket families, "
        "32-bit and x32 entries",
        "an allow-list, one probe a call (crun); gVisor answers such calls itself or has none",
    ),
    "A6": Row(
        "rewriting guestd or the runtime through `/proc/*/exe`, leaked descriptors, working directories by descriptor, "
        "links in an image where `/dev`, `/proc` and `/sys` belong",
        "guestd is bound read-only from a file of its own, the runtime's binary is not visible, nothing is left open, "
        "the image never decides what is mounted",
    ),
    "A7": Row(
        "capabilities beyond the profile: ambient, of files, by set-uid; root inside as root outside",
        "a bounding set of 12, none ambient or inheritable; host uids that no other sandbox of the machine has (crun)",
    ),
    "A8": Row(
        "the host's folders, sockets, keys and disks",
        "the only bind mounts are guestd's folder, and under crun the processors' list and two files of numbers, "
        "all read-only, and the volumes that were asked for: images of their own, nosuid and nodev",
    ),
    "A9": Row(
        "links, `..`, FIFOs, devices and swapped files given to file operations through the API",
        "files of sandboxes go through guestd, which is inside; in volumes the kernel walks every path below the root, "
        "without waiting, and nothing but files and directories is used",
    ),
    "A10": Row("telling the host from inside", "gVisor shows its own machine; crun shows the host's in places"),
    "A11": Row(
        "an image made to break its unpacking: paths and links that lead out, device nodes, bombs, giants",
        "every layer is read through and judged before a tool unpacks it in a cell of its own: no network, no file of "
        "the host, a disk of fixed size, a root user who is nobody outside",
    ),
    "B1": Row(
        "every address of the host: loopback, bridge, API and gateway ports",
        "input from the bridge is dropped but for replies",
    ),
    "B2": Row(
        "another sandbox: by address, IPv6, multicast, forged ARP",
        "isolated bridge ports, no flooding, no IPv6, rules that never forward between ports",
    ),
    "B3": Row(
        "private, link-local, metadata, carrier and multicast addresses",
        "closed in the firewall, before and above every rule of a user; traps behind such addresses catch nothing",
    ),
    "B4": Row(
        "forged frames (source address, MAC, ARP, VLAN, other ethertypes), raw sockets, changed interfaces",
        "only the slot's triple (interface, MAC, address) passes; no CAP_NET_RAW, no CAP_NET_ADMIN",
    ),
    "B5": Row(
        "traffic before the rules are there, after a change, over a restart, after somebody flushed them",
        "a slot's rules are loaded before its interface exists, egress rules before the runtime starts; a new server "
        "loads all in one step; flushed ones are looked for every 2 s",
    ),
    "B6": Row(
        "an address reused while something still points at it",
        "connections are cut when the route goes, tracked ones forgotten; links, namespaces and counters are made anew",
    ),
    "B7": Row(
        "the gateway: smuggling, header spoofing, control routes, odd ids and ports, bombs, slow clients, floods",
        "one strict parser, limits by name, a closed list of what passes",
    ),
    "B8": Row(
        "what a guest or a service in a sandbox answers, and what comes with an image",
        "bounded, and fuzzed from a kept corpus: logs, command streams, tunnels, relayed answers, the files of a "
        "build, descriptions of templates (`make fuzz`)",
    ),
    "B9": Row("cookies that one sandbox's page sets for all names of the domain", "nothing stops them"),
    "B10": Row("DNS tunnels, domain fronting, names behind an allowed address", "domain rules are refused with 501"),
    "B11": Row(
        "a registry that is named, or that another one names, at an address of the host or of its networks",
        "what fetches images has no network but a proxy of the server, which judges the address that it then dials",
    ),
    "C1": Row(
        "more memory than given",
        "a hard cgroup limit without swap, at which the largest process is ended, by the kernel (crun) or by guestd "
        "(gVisor); where guestd does not answer the sandbox is ended; what waits in sockets is bounded apart",
    ),
    "C2": Row(
        "a fork bomb: as `user`, as root, over a thousand users",
        "RLIMIT_NPROC for each user; at the limit guestd stops all, ends the family that has most, and lets the others "
        "go on; the cgroup is the outer fence, which under gVisor ends the sandbox of who stops guestd first",
    ),
    "C3": Row("a full disk", "a layer of a fixed size: an error inside and no more"),
    "C4": Row("memory through tmpfs, `/dev/shm`", "every memory file system has a size"),
    "C5": Row(
        "connections without end, opened and closed again, in the table that a machine has for all",
        "a 64th of the table for each sandbox, 4,096 at most, and as many anew in 32 s after a first rush, so what is "
        "closed and still remembered is bounded too; 1,000 open requests through the gateway",
    ),
    "C6": Row(
        "floods of output, slow readers, many processes, many watchers",
        "bounded memory in guestd and in the server, back-pressure to the writer",
    ),
    "C7": Row(
        "a neighbour beside a sandbox at its worst: processors, memory, forks, disk, inodes, page cache, output, "
        "packets, sockets and what waits in them, watches, terminals, log spam",
        "limits for each sandbox; processors go by weight: to each by its size, and to the server before all of them; "
        "`make attack` measures a neighbour's `true` beside each kind: at most 3 times as long, 1.4 where nobody else "
        "loads the machine",
    ),
    "C8": Row(
        "what the kernel counts for a whole machine: inotify instances and watches, pending signals, message queues, "
        "terminals, open files, neighbours on a network, requests of io_setup",
        "a sandbox's user namespace belongs to a host uid of its own, so they are counted for it alone; 256 terminals; "
        "files are memory of who opens them; no route to neighbours, no io_setup (crun); gVisor has counts of its own",
    ),
    "D1": Row(
        "another project's sandboxes, keys and templates",
        'one 404 for "not there" and "not yours", in text and in time; a table of all routes, which fails when a route '
        "has no line in it",
    ),
    "D2": Row(
        "a wrong, revoked or missing key, a token in the place of a key",
        "looked up on every request, on every route of the same table",
    ),
    "D3": Row("another sandbox's token, or none", "HMAC per sandbox and purpose, checked by guestd"),
    "D4": Row(
        "keys, tokens and environments at rest and in logs",
        "digests only, files of mode 0600; values of secrets sealed with a key outside the database; environments are "
        "never stored, logs name no value",
    ),
    "D5": Row(
        "bad input: wrong types, odd Unicode, NUL, huge numbers, deep nesting, strange times",
        "a 4xx with a code, never a 500; also for requests made from the OpenAPI document",
    ),
    "D6": Row(
        "what sleeps on the disk: read, changed, restored where it does not fit, found after it was deleted",
        "mode 0600, with a key never there in the open; compared and digested before each start; truncated, unlinked "
        "and flushed when it is deleted",
    ),
    "E1": Row(
        "server killed at any step of any operation",
        "adoption and clean-up after kill -9: what was acknowledged is there, whole, and no more; commands of runtimes "
        "that outlived it are ended before anything is judged; `make chaos` tries every call across a contract, and "
        "each such command while it is at work",
    ),
    "E2": Row("runtime refuses, fails, hangs, is missing", "every call has a deadline and a way back"),
    "E3": Row(
        "guestd or the sentry killed or stopped, answers that are garbage, endless or never come",
        "a death is seen at once; each guest is asked every 4 s, and one silent for 12 s is `unresponsive`: streams "
        "cut, 502 with words, an entry in its log; `kill` works",
    ),
    "E4": Row(
        "two servers on one state folder, bridge or database",
        "locks, the second refuses to start; on one database each sandbox has one home",
    ),
    "E5": Row(
        "disk full, database locked, clock jumps by hours",
        "507 or 503 in words, `kill` works, and what could not be written down is made up for; deadlines survive jumps",
    ),
    "E6": Row(
        "machine restarted",
        "what ran or was frozen has ended for that reason, what sleeps on disk wakes as it was, new ones start",
    ),
    "E7": Row(
        "told to stop in the middle of work",
        "10 s to answer what is under way, the rest is undone; sandboxes go on, or end with `--stop-sandboxes-on-exit`",
    ),
    "F1": Row(
        "change, remove, move or add a line of the audit log, or cut it off",
        "HMAC chain and signed checkpoint: `warren audit verify`",
    ),
    "F2": Row(
        "fill the disk with refusals; act while nothing can be written down",
        "the first 20 of a minute, then a count; files of 16 MiB, 64 kept; changes are refused with 503 "
        "(`WARREN_AUDIT_REQUIRED`)",
    ),
}
