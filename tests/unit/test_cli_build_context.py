"""The files that a build copies."""

import os
import tarfile
from pathlib import Path

import pytest

from warren.cli.build_context import chosen, digest, packed, read_ignored
from warren.model.errors import BadRequest


@pytest.fixture
def context(tmp_path: Path) -> Path:
    for name in ("app.py", "lib/a.py", "lib/deep/b.py", "lib/deep/b.txt", "node_modules/x/y.js", ".git/config"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "folder-link").symlink_to("lib")
    return tmp_path


def choose(context: Path, source: str, ignored: str = "") -> list[str]:
    (context / ".dockerignore").write_text(ignored)
    return [path for path in chosen(context, source, read_ignored(context)) if path != ".dockerignore"]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("app.py", ["app.py"]),
        ("./lib/", ["lib", "lib/a.py", "lib/deep", "lib/deep/b.py", "lib/deep/b.txt"]),
        ("*.py", ["app.py"]),
        ("**/*.py", ["app.py", "lib/a.py", "lib/deep/b.py"]),
        ("lib/*", ["lib/a.py", "lib/deep", "lib/deep/b.py", "lib/deep/b.txt"]),
        ("li?/[a-c].py", ["lib/a.py"]),
        ("link", ["link"]),
        ("folder-link", ["folder-link"]),
    ],
)
def test_sources_are_patterns(context: Path, source: str, found: list[str]) -> None:
    assert choose(context, source) == found


def test_ignored_files_stay_behind(context: Path) -> None:
    ignored = "# comment\nnode_modules\n.git\n**/*.txt\nlib/deep\n!lib/deep/b.py\n*link\n"
    assert choose(context, ".", ignored) == ["app.py", "lib", "lib/a.py", "lib/deep/b.py"]


@pytest.mark.parametrize("source", ["../x", "lib/../../x", "nothing", "*.nothing"])
def test_nothing_outside_and_nothing_at_all_are_refused(context: Path, source: str) -> None:
    with pytest.raises(BadRequest, match="cannot copy"):
        choose(context, source)


def test_the_archive_holds_links_as_links_and_no_owners(context: Path) -> None:
    with packed(context, choose(context, ".")) as file, tarfile.open(fileobj=file) as archive:
        members = {member.name: member for member in archive}
    assert members["link"].linkname == "/etc/passwd"
    assert members["lib"].isdir()
    assert {(member.uid, member.gid, member.uname) for member in members.values()} == {(0, 0, "")}


def test_the_digest_follows_content_mode_and_destination(context: Path) -> None:
    def now(*step: str) -> str:
        return digest(context, step, choose(context, "lib"))

    first = now("lib", "/a")
    os.utime(context / "lib/a.py", (1, 1))
    assert now("lib", "/a") == first
    assert now("lib", "/b") != first
    (context / "lib/a.py").chmod(0o755)
    other = now("lib", "/a")
    assert other != first
    (context / "lib/a.py").write_text("changed")
    assert now("lib", "/a") != other
