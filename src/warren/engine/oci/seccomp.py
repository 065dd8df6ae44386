"""Which system calls code under crun may make: an allow-list, because its kernel is the host's.

What is not named is answered ENOSYS, as by an older kernel, so that libraries fall back. What is named in REFUSED is
answered EPERM: programs know that answer and say something sensible.

Not there, though it harms only others: asynchronous I/O of old (io_setup). The kernel has 65,536 requests of it for a
whole machine (fs.aio-max-nr), counted for nobody in particular.
"""

import errno
import platform
from collections.abc import Mapping

ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
"""Only the machine's own: the 32-bit entry points are a second, less tested door to the same kernel."""

NAMESPACE_FLAGS = 0x7E020080
"""All CLONE_NEW* bits of clone(2), CLONE_NEWTIME among them."""
SOCKET_FAMILIES = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6, AF_NETLINK. Not AF_VSOCK (the hypervisor), AF_ALG, AF_PACKET and the forgotten ones."""
PERSONALITIES = (0x0, 0x0008, 0x20000, 0x20008, 0x40000, 0xFFFFFFFF)
"""The Linux ones, with UNAME26 and ADDR_NO_RANDOMIZE (gdb), and the query."""

FILES = """
access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64 fallocate
fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr
fstat fstatfs fsync ftruncate futimesat getcwd getdents getdents64 getxattr inotify_add_watch inotify_init
inotify_init1 inotify_rm_watch ioctl lchown lgetxattr link linkat listxattr llistxattr lremovexattr lseek lsetxattr
lstat mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 pipe pipe2 pread64 preadv preadv2
pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv removexattr rename renameat renameat2 rmdir
sendfile setxattr splice stat statfs statx symlink symlinkat sync sync_file_range syncfs tee truncate umask unlink
unlinkat utime utimensat utimes vmsplice write writev
"""
MEMORY = """
brk cachestat madvise map_shadow_stack membarrier memfd_create mincore mlock mlock2 mlockall mmap mprotect mremap
mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages
"""
PROCESSES = """
arch_prctl capget capset chroot execve execveat exit exit_group fork get_robust_list getcpu getegid geteuid getgid
getgroups getitimer getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage
getsid gettid getuid ioprio_get ioprio_set kcmp kill pause pidfd_getfd pidfd_open pidfd_send_signal prctl prlimit64
process_madvise process_mrelease process_vm_readv process_vm_writev ptrace restart_syscall rseq rt_sigaction
rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo
sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp
set_robust_list set_tid_address setfsgid setfsuid setgid setgroups setitimer setpgid setpriority setregid setresgid
setresuid setreuid setrlimit setsid setuid sigaltstack sysinfo tgkill tkill uname vfork wait4 waitid
"""
WAITING = """
alarm clock_getres clock_gettime clock_nanosleep epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait
epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 futex futex_requeue futex_wait futex_waitv futex_wake
get_thread_area gettimeofday nanosleep poll ppoll pselect6 select set_thread_area signalfd signalfd4 time timer_create
timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times
"""
TALKING = """
accept accept4 bind connect getpeername getsockname getsockopt listen mq_getsetattr mq_notify mq_open mq_timedreceive
mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd recvfrom recvmmsg recvmsg semctl semget semop semtimedop sendmmsg
sendmsg sendto setsockopt shmat shmctl shmdt shmget shutdown socketpair
landlock_add_rule landlock_create_ruleset landlock_restrict_self
"""
REFUSED = """
acct add_key adjtimex bpf clock_adjtime clock_settime create_module delete_module fanotify_init fanotify_mark
finit_module fsconfig fsmount fsopen fspick get_kernel_syms get_mempolicy init_module io_uring_enter io_uring_register
io_uring_setup ioperm iopl kexec_file_load kexec_load keyctl listmount lookup_dcookie mbind migrate_pages mount
mount_setattr move_mount move_pages nfsservctl open_by_handle_at open_tree perf_event_open pivot_root query_module
quotactl quotactl_fd reboot request_key set_mempolicy set_mempolicy_home_node setdomainname sethostname setns
settimeofday statmount swapoff swapon syslog umount2 unshare uselib userfaultfd vhangup
"""


def profile() -> Mapping[str, object]:
    """As the OCI specification's `linux.seccomp` wants it."""
    allowed = [*" ".join((FILES, MEMORY, PROCESSES, WAITING, TALKING)).split()]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.ENOSYS,
        "architectures": [ARCHITECTURES[platform.machine()]],
        "syscalls": [
            {"names": allowed, "action": "SCMP_ACT_ALLOW"},
            {"names": REFUSED.split(), "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPERM},
            # clone3 hides its flags behind a pointer that a filter cannot read; libc falls back to clone.
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS},
            _only("clone", {"index": 0, "value": NAMESPACE_FLAGS, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}),
            *(_only("socket", _is(family)) for family in SOCKET_FAMILIES),
            *(_only("personality", _is(value)) for value in PERSONALITIES),
        ],
    }


def _only(name: str, condition: Mapping[str, object]) -> Mapping[str, object]:
    return {"names": [name], "action": "SCMP_ACT_ALLOW", "args": [condition]}


def _is(value: int) -> Mapping[str, object]:
    return {"index": 0, "value": value, "op": "SCMP_CMP_EQ"}
