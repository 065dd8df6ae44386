"""Makes the tree of an image fit for sandboxes. Runs in the cell with the tree as its root: links lead nowhere else.

The sandbox brings guestd, /dev, /proc and /sys; the image gets the places where they are mounted, the user that
commands run as, and the files that guestd writes at start.
"""

import os
import shutil
import stat
from collections.abc import Iterator

USER = "user"
FIRST_ID = 1000
"""Of the user: the first one from here that nobody has."""
FIT = 1
"""Of what is done here; a change of it makes new images out of the same ones."""
ACCOUNTS_BYTES = 4 * 1024 * 1024
"""Bytes of /etc/passwd and the like; as many as guestd reads."""
SKELETON_BYTES = 64 * 1024
SUDO_GROUPS = ("sudo", "wheel")
SHELLS = ("/bin/bash", "/bin/sh")
OURS = ("/dev", "/proc", "/sys", "/.warren")
"""Mounted over by the engine. The image has no say in what is there."""
HOSTS = "127.0.0.1\tlocalhost\n127.0.1.1\tsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n"


def fit() -> None:
    for path in OURS:
        _remove(path)
    for path in (*OURS, "/dev/pts", "/dev/shm", "/dev/mqueue"):  # noqa: S108  # of the image
        os.mkdir(path, 0o755)
    for path in ("/etc", "/run", "/var", "/home", "/usr", "/usr/local", "/usr/local/bin"):
        _folder(path, 0o755)
    _folder("/root", 0o700)
    for path in ("/tmp", "/var/tmp"):  # noqa: S108  # of the image
        _folder(path, 0o755)
        os.chmod(path, 0o1777)  # noqa: S103  # as everywhere
    # gVisor lays a tmpfs, paid in memory, over an empty /tmp.
    _write("/tmp/.keep", "", 0o644)  # noqa: S108  # of the image
    for name, content in (("hostname", "sandbox\n"), ("hosts", HOSTS), ("resolv.conf", ""), ("machine-id", "")):
        _write(f"/etc/{name}", content, 0o644)
    _add_user()
    _open_local()


def _add_user() -> None:
    users, groups = _read("/etc/passwd"), _read("/etc/group")
    if not users:
        users = ["root:x:0:0:root:/root:/bin/sh"]
    if not groups:
        groups = ["root:x:0:"]
    known = _named(users, USER)
    if known is None:
        taken = _ids(users) | _ids(groups)
        uid = next(number for number in range(FIRST_ID, 65_536) if number not in taken)
        group = _named(groups, USER)
        gid = uid if group is None else int(group[2])
        if group is None:
            groups.append(f"{USER}:x:{gid}:")
        secrets = _read("/etc/shadow")
        password = "x" if secrets else ""
        users.append(f"{USER}:{password}:{uid}:{gid}:{USER}:/home/{USER}:{_shell()}")
        if secrets:
            _write("/etc/shadow", _lines([*secrets, f"{USER}::19000:0:99999:7:::"]), 0o640, keep=True)
        groups = [_with_member(line) for line in groups]
        _home(f"/home/{USER}", uid, gid)
    _write("/etc/passwd", _lines(users), 0o644, keep=True)
    _write("/etc/group", _lines(groups), 0o644, keep=True)
    if os.path.exists("/etc/sudoers") or os.path.exists("/usr/bin/sudo"):
        _folder("/etc/sudoers.d", 0o750)
        _write(f"/etc/sudoers.d/{USER}", f"{USER} ALL=(ALL:ALL) NOPASSWD: ALL\n", 0o440)


def _shell() -> str:
    return next((shell for shell in SHELLS if os.path.exists(shell)), SHELLS[-1])


def _with_member(line: str) -> str:
    fields = line.split(":")
    if fields[0] not in SUDO_GROUPS or len(fields) != 4:
        return line
    return ":".join([*fields[:3], ",".join([*filter(None, fields[3].split(",")), USER])])


def _named(lines: list[str], name: str) -> list[str] | None:
    found = (line.split(":") for line in lines)
    return next((each for each in found if each[0] == name and len(each) > 3 and each[2].isdecimal()), None)


def _ids(lines: list[str]) -> set[int]:
    fields = (line.split(":") for line in lines)
    return {int(each[2]) for each in fields if len(each) > 2 and each[2].isdecimal() and len(each[2]) < 10}


def _home(home: str, uid: int, gid: int) -> None:
    _folder(home, 0o755)
    os.chown(home, uid, gid)
    for entry in _entries("/etc/skel"):
        if not entry.is_file(follow_symlinks=False) or entry.stat(follow_symlinks=False).st_size > SKELETON_BYTES:
            continue
        target = f"{home}/{entry.name}"
        if not os.path.lexists(target):
            shutil.copy(entry.path, target)
            os.chown(target, uid, gid)


def _open_local() -> None:
    """Folders below /usr/local may be written by all, as in the base template: `npm install -g` needs no sudo."""
    for folder in _folders("/usr/local"):
        os.chmod(folder, 0o777)  # noqa: S103  # whoever is in the sandbox may be root in it


def _folders(top: str) -> Iterator[str]:
    """With all below; links are not followed."""
    pending = [top]
    while pending:
        folder = pending.pop()
        yield folder
        pending += [entry.path for entry in _entries(folder) if entry.is_dir(follow_symlinks=False)]


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _folder(path: str, mode: int) -> None:
    """Be it a link to one: a merged /usr and the like stay. What is there and is none has to go."""
    if not os.path.isdir(path):
        _remove(path)
        os.mkdir(path, mode)
        os.chmod(path, mode)


def _remove(path: str) -> None:
    if not os.path.lexists(path):
        return
    if stat.S_ISDIR(os.lstat(path).st_mode):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _read(path: str) -> list[str]:
    """Lines of a plain file; what is anything else, or too large, counts as empty."""
    try:
        # Not blocking: it may be a pipe.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > ACCOUNTS_BYTES:
            return []
        return os.read(fd, found.st_size).decode("utf-8", "surrogateescape").splitlines()
    finally:
        os.close(fd)


def _write(path: str, content: str, mode: int, *, keep: bool = False) -> None:
    """A plain file in place of whatever is there, a link among it. `keep`: with the owner and mode of the old one."""
    uid = gid = 0
    if keep and os.path.isfile(path):
        old = os.stat(path)
        uid, gid, mode = old.st_uid, old.st_gid, stat.S_IMODE(old.st_mode)
    _remove(path)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(content.encode("utf-8", "surrogateescape"))
        os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)


def _lines(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
