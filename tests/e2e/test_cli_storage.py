"""`warren volume` and `warren secret` against the real server."""

import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2b import Sandbox, Secret, Volume

from tests.e2e.local_server import LocalServer


@pytest.fixture
def name(server: LocalServer) -> Iterator[str]:
    chosen = f"cli-{secrets.token_hex(4)}"
    yield chosen
    for volume in Volume.list():
        if volume.name == chosen:
            Volume.destroy(volume.volume_id)
    Secret.destroy(chosen)


def succeed(server: LocalServer, *words: str, stdin: str | None = None) -> str:
    done = server.run(*words, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.covers("V01", "V02")
def test_a_volume_is_made_filled_listed_and_deleted(server: LocalServer, name: str, tmp_path: Path) -> None:
    volume_id = succeed(server, "volume", "create", name, "--size", "64").strip()
    content = os.urandom((3 << 20) + 7)
    (tmp_path / "large").write_bytes(content)
    succeed(server, "volume", "cp", str(tmp_path / "large"), f"{name}:/in/")
    succeed(server, "volume", "cp", "-", f"{name}:/in/said", stdin="naïve\n")
    with Sandbox.create(timeout=120, volume_mounts={"/v": name}) as box:
        assert box.files.read("/v/in/large", format="bytes") == content
        assert box.files.read("/v/in/said") == "naïve\n"
        used = server.run("volume", "delete", name)
        assert (used.returncode, used.stdout) == (1, "") and box.sandbox_id in used.stderr
    (tmp_path / "back").mkdir()
    succeed(server, "volume", "cp", f"{name}:/in/large", str(tmp_path / "back"))
    assert (tmp_path / "back" / "large").read_bytes() == content
    rows = json.loads(succeed(server, "volume", "ls", name, "--depth", "2", "--json"))
    assert [row["path"] for row in rows] == ["/in", "/in/large", "/in/said"]
    assert json.loads(succeed(server, "volume", "delete", volume_id, "--json"))["deleted"] == [volume_id]


@pytest.mark.covers("K01")
def test_a_secret_is_set_and_never_shown(server: LocalServer, name: str, tmp_path: Path) -> None:
    said = succeed(server, "secret", "set", name, "--metadata", "team=a", stdin="first-planted\n")
    (tmp_path / "value").write_text("second-planted")
    said += succeed(server, "secret", "set", name, "--file", str(tmp_path / "value"), "--json")
    assert json.loads(said)["currentVersion"] == 2
    said += succeed(server, "secret", "list", "--json")
    assert name in said and "planted" not in said
    assert Secret.get_info(name).metadata == {"team": "a"}
    succeed(server, "secret", "delete", name)
    assert not Secret.exists(name)
