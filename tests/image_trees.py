"""Images that resemble those people use: one static program, busybox alone, a small Debian."""

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.oci_image import THEN, Image, archive, entry, link

BUSYBOX = Path("/bin/busybox")
APPLETS = ("sh", "cat", "ls", "id", "echo", "stat", "sleep", "uname", "env", "pwd")
PROGRAMS = (
    "bash", "cat", "chown", "id", "ls", "mkdir", "stat", "sudo", "touch", "uname", "whoami", "env", "sleep",
    "sh", "dash",
)  # fmt: skip


def scratch() -> Image:
    """One static binary and nothing else; it is called with the name of what it shall be."""
    return Image([archive(entry("echo", busybox(), mode=0o755))])


def alpine_like() -> Image:
    """Busybox, /bin/ash in the accounts, no bash and no sudo."""
    accounts = b"root:x:0:0:root:/root:/bin/ash\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n"
    entries = [
        entry("bin"),
        entry("bin/busybox", busybox(), mode=0o755),
        *(link(f"bin/{name}", "/bin/busybox") for name in APPLETS),
        entry("etc/passwd", accounts),
        entry("etc/group", b"root:x:0:root\nwheel:x:10:root\n"),
        entry("etc/shadow", b"root:*::0:::::\n", mode=0o640, gid=42),
        entry("var"),
        link("var/run", "../run"),
        entry("srv/odd", b"mine\n", uid=65_535, gid=61_234, mode=0o600),
    ]
    return Image([archive(*entries)], {"Env": ["PATH=/usr/bin:/bin", "GREETING=hello"], "WorkingDir": "/srv"})


def debian_like(base: Path) -> Image:
    """Bash, coreutils and sudo out of the base template, with a user of its own where `user` would be."""
    with tarfile.open(fileobj=io.BytesIO(_taken_from(base))) as taken:
        files = {member.name.removeprefix("./"): (member, _content(taken, member)) for member in taken}
    for name in ("etc/sudoers.d/user", "home/user"):
        files.pop(name, None)
    for name in ("etc/passwd", "etc/group", "etc/shadow"):
        member, content = files[name]
        lines = [line for line in content.splitlines(keepends=True) if b"user:" not in line[:5]]
        files[name] = entry(name, b"".join(lines), mode=member.mode, gid=member.gid)
    files["etc/passwd"] = entry("etc/passwd", files["etc/passwd"][1] + b"node:x:1000:1000::/home/node:/bin/bash\n")
    own = entry("home/node/data", b"x", uid=1000, gid=1000)
    return Image([archive(*files.values()), archive(own)], {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]})


def busybox() -> bytes:
    if not BUSYBOX.exists():
        pytest.skip("no busybox; run `scripts/setup tests`")
    return BUSYBOX.read_bytes()


def _content(taken: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    member.mtime, member.pax_headers = THEN, {}
    file = taken.extractfile(member) if member.isreg() else None
    return file.read() if file else b""


def _taken_from(base: Path) -> bytes:
    """An archive of what a small Debian has, out of an EROFS image that is mounted for as long."""
    script = 'mount -t erofs -o loop,ro "$1" /mnt && cd /mnt && shift && tar -c --numeric-owner --no-recursion "$@"'
    names = subprocess.run(
        ["unshare", "-m", "bash", "-c", f'{script.partition(" && shift")[0]} && {_LIST}', "sh", base],
        check=True, capture_output=True, text=True, env={**os.environ, "PROGRAMS": " ".join(PROGRAMS)},
    ).stdout.splitlines()  # fmt: skip
    return _output("unshare", "-m", "bash", "-c", script, "sh", str(base), *names)


_LIST = (
    "find bin sbin lib lib64 etc root var usr/lib/x86_64-linux-gnu usr/lib/aarch64-linux-gnu usr/libexec/sudo"
    " usr/lib/sudo usr/lib64 usr/share/pam -xdev -size -5120k -not -path 'var/lib/*' -not -path '*/perl*' 2> /dev/null;"
    ' for name in $PROGRAMS; do echo "usr/bin/$name"; done'
)
"""Libraries of more than 5 MiB are left out: the programs above need none."""


def _output(*argv: str) -> bytes:
    return subprocess.run(argv, check=True, capture_output=True).stdout
