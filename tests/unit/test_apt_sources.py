"""Which of a machine's apt sources the base template is built from: Debian's own, none of a third party."""

import importlib.machinery
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "apt-sources"
DEB822 = """\
# a note
Types: deb
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian
Suites: bookworm-backports
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: http://third.example/apt
Suites: bookworm
Components: stable
"""


@pytest.fixture
def script() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("apt_sources", str(SCRIPT))
    spec = importlib.util.spec_from_loader("apt_sources", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_only_debian_s_stanzas_of_the_release_are_taken(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "debian.sources").write_text(DEB822)
    taken = list(script.deb822(tmp_path / "debian.sources", "bookworm"))
    assert len(taken) == 1
    assert "Suites: bookworm bookworm-updates" in taken[0]
    assert "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg" in taken[0]


def test_only_debian_s_lines_of_the_release_are_taken(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(
        "deb [signed-by=/usr/share/keyrings/x.gpg] http://mirror.example/debian bookworm main # the mirror\n"
        "deb http://mirror.example/security bookworm-security main contrib\n"
        "deb-src http://mirror.example/debian bookworm main\n"
        "# deb http://off.example/debian bookworm main\n"
        "deb http://third.example/apt cloud-bookworm main\n"
        "deb http://next.example/debian trixie main\n"
    )
    taken = list(script.one_line(tmp_path / "sources.list", "bookworm"))
    assert [line.split()[-1] for line in taken] == ["mirror", "contrib"]
