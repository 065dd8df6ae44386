"""What must not stay in the tree: notes to oneself, and the machine that it was written on."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from tests.tidy import tree

ASK_SECONDS = 20
NOTES = ("FIX" + "ME", "TO" + "DO", "XX" + "X")
URL = re.compile(r"https?://[^\s\"'<>,|]+")
CLIENTS = (
    ("pip", "config", "get", "global.index-url"),
    ("npm", "config", "get", "registry"),
    ("go", "env", "GOPROXY"),
    # pip's built-in default, which no configuration mentions
    (
        "python3",
        "-c",
        "from pip._internal.models.index import PyPI as i; print(i.url, f'https://{i.file_storage_domain}')",
    ),
)
"""What the machine's own clients say about where they get packages."""
VARIABLES = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "GOPROXY", "npm_config_registry")


def test_no_notes_to_oneself() -> None:
    pattern = re.compile(rf"\b({'|'.join(NOTES)})\b")
    found = [
        f"{path}:{number}"
        for path in tree.files()
        for number, line in enumerate((tree.text(path) or "").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, f"do it, or write an issue: {found}"


def test_no_file_names_a_package_registry() -> None:
    hosts = registry_hosts()
    named = [f"{path}: {host}" for path in tree.files() for host in hosts if names(tree.text(path) or "", host)]
    assert not named, f"leave the choice of a registry to the machine's own clients: {named}"


def test_no_file_names_this_checkout() -> None:
    here = str(tree.ROOT)
    if tree.ROOT.parent == Path("/") or here.startswith("/home/user"):
        return  # such a path means something inside a sandbox
    named = [str(path) for path in tree.files() if here in (tree.text(path) or "")]
    assert not named, f"find the way from the file's own place: {named}"


def names(content: str, host: str) -> bool:
    return re.search(rf"(?<![\w.-]){re.escape(host)}(?![\w-])", content) is not None


def registry_hosts() -> set[str]:
    """Hosts that this machine's package clients are set up with; none is written down here."""
    told = [os.environ.get(name, "") for name in VARIABLES]
    told += [answer(*command) for command in CLIENTS]
    apt = Path("/etc/apt")
    listed = [apt / "sources.list", *apt.glob("sources.list.d/*.list"), *apt.glob("sources.list.d/*.sources")]
    told += [path.read_text() for path in listed if path.is_file()]
    hosts = {urlsplit(url).hostname for text in told for url in URL.findall(text)}
    return {host for host in hosts if host and "." in host and host != "127.0.0.1"}


def answer(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    # From / : a folder's own settings, like those of this checkout, are not the machine's.
    done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_SECONDS, check=False, cwd="/")
    return done.stdout
