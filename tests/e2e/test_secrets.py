"""Values planted through the client are nowhere that the server writes or shows, but where they belong."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from e2b import Sandbox, Template

from tests.e2e.conftest import RUNTIMES
from tests.e2e.local_server import LocalServer

pytestmark = [pytest.mark.threat("D4"), pytest.mark.timeout(240)]
CHUNK = 1 << 20
BELONGS: dict[str, set[str]] = {
    "disk": {"content"},
    "log": {"argument"},
}
"""A sandbox's own disk holds what it was given to keep, its own log the commands that ran: nobody else reads them."""
OPEN = {"boot", "boot_id", "meminfo"}
"""The number of this machine's boot; its own boot id and memory in use, as the users of a crun sandbox read them."""


def kind(path: Path) -> str:
    if "layers" in path.parts:
        return "disk"
    return "log" if path.name.startswith("warren.db") else "other"


@pytest.fixture(scope="module")
def talkative(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """At its most talkative level: nothing may depend on what is left out."""
    if os.geteuid() != 0:
        pytest.skip("sandboxes need root")
    folder = tmp_path_factory.mktemp("secrets")
    key = folder / "checkpoint-key"
    key.write_bytes(secrets.token_bytes(32))
    key.chmod(0o600)
    settings = {"log_level": "debug", "log_json": "true", "checkpoint_key_file": str(key)}
    with LocalServer(folder / "server", **settings) as server:
        yield server


def planted(what: str) -> str:
    return f"planted-{what}-{secrets.token_hex(12)}"


def ask(
    server: LocalServer, method: str, path: str, key: str, body: Any = None, token: str | None = None
) -> tuple[int, str]:
    """`token`: of a volume, in the place of the key."""
    data = None if body is None else json.dumps(body).encode()
    identity = {"X-API-KEY": key} if token is None else {"Authorization": f"Bearer {token}"}
    request = Request(server.api_url + path, data, {**identity, "Content-Type": "application/json"}, method=method)
    try:
        with urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def files(*roots: Path) -> Iterator[Path]:
    for root in roots:
        for folder, _, names in os.walk(root):
            for name in names:
                path = Path(folder, name)
                if path.is_file() and not path.is_symlink():
                    yield path


def holds(path: Path, words: dict[str, bytes]) -> set[str]:
    """Names of the values that are in the file."""
    found: set[str] = set()
    with suppress(OSError), path.open("rb") as file:
        tail = b""
        while data := file.read(CHUNK):
            text = tail + data
            found |= {name for name, word in words.items() if word in text}
            tail = text[-100:]
    return found


def host_processes() -> Iterator[tuple[str, bytes]]:
    """Command lines and environments of all processes that share our namespace: those in sandboxes have their own."""
    mine = os.readlink("/proc/self/ns/pid")
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with suppress(OSError):
                if os.readlink(folder / "ns" / "pid") == mine:
                    yield folder.name, (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()


def is_open_to_others(path: Path) -> bool:
    """Whether somebody who is neither root nor the owner gets to it."""
    return bool(path.stat().st_mode & 0o004) and all(parent.stat().st_mode & 0o001 for parent in path.parents)


@contextmanager
def used(server: LocalServer, runtime: str) -> Iterator[dict[str, str]]:
    """Hand secrets to the server in every way there is, and make it fail with them too. The sandbox lives meanwhile."""
    key = server.api_key
    said = {what: planted(what) for what in ("env", "command-env", "content", "argument", "stdin", "wrong-token")}
    status, made = ask(server, "POST", "/api-keys", key, {"name": "second"})
    assert status == 201
    said["api-key"] = json.loads(made)["key"]
    said |= {"secret": planted("secret"), "new-secret": planted("new-secret")}
    name = f"planted-{runtime}"
    assert ask(server, "POST", "/secrets", key, {"name": name, "value": said["secret"]})[0] == 201
    assert ask(server, "POST", f"/secrets/{name}", key, {"value": said["new-secret"]})[0] == 200
    volume = json.loads(ask(server, "POST", "/volumes", key, {"name": name})[1])
    said["volume-token"] = volume["token"]
    sandbox = Sandbox.create(
        envs={"PLANTED": said["env"]},
        timeout=300,
        network={"allow_public_traffic": False},
        volume_mounts={"/mnt/kept": name},
        api_headers={"X-Warren-Runtime": runtime},
        **{**server.options, "api_key": said["api-key"]},
    )
    try:
        said["access-token"] = json.loads(ask(server, "GET", f"/sandboxes/{sandbox.sandbox_id}", key)[1])[
            "envdAccessToken"
        ]
        said["traffic-token"] = str(sandbox.traffic_access_token)
        sandbox.files.write("/home/user/planted", said["content"])
        assert sandbox.commands.run("echo -n $PLANTED").stdout == said["env"]
        sandbox.commands.run(f"true {said['argument']}", envs={"MORE": said["command-env"]})
        reader = sandbox.commands.run("cat", background=True, stdin=True)
        sandbox.commands.send_stdin(reader.pid, said["stdin"])
        reader.kill()
        said["signature"] = sandbox.download_url("/home/user/planted").partition("signature=")[2].partition("&")[0]
        with urlopen(sandbox.download_url("/home/user/planted"), timeout=60) as answer:
            assert answer.read().decode() == said["content"]
        file = f"/volumecontent/{volume['volumeID']}/file?path=/note"
        assert ask(server, "PUT", file, key, "kept", said["volume-token"])[0] == 201
        assert sandbox.files.read("/mnt/kept/note") == '"kept"'
        _fail(server, sandbox, said, file)
        yield said
    finally:
        sandbox.kill()
        assert ask(server, "DELETE", f"/volumes/{volume['volumeID']}", key)[0] == 204


def _fail(server: LocalServer, sandbox: Sandbox, said: dict[str, str], file: str) -> None:
    assert ask(server, "GET", file, "", token=said["wrong-token"])[0] == 401
    assert ask(server, "GET", f"{file}-missing", "", token=said["volume-token"])[0] == 404
    assert ask(server, "GET", "/v2/sandboxes", said["volume-token"])[0] == 401
    for body in (
        {"templateID": "base", "envVars": {"A=B": said["env"]}},
        {"templateID": "base", "envVars": {"A": said["env"] + "\0"}},
        {"templateID": "base", "envVars": said["env"]},
        {"templateID": "base", "envVars": {"A": said["env"]}, "runtime": "none"},
    ):
        status, text = ask(server, "POST", "/v2/sandboxes", server.api_key, body)
        assert status == 400
        assert said["env"] not in text
    for body in ({"name": "no name", "value": said["secret"]}, {"name": "x", "value": [said["secret"]]}):
        status, text = ask(server, "POST", "/secrets", server.api_key, body)
        assert status == 400
        assert said["secret"] not in text
    assert ask(server, "GET", "/v2/sandboxes", said["wrong-token"])[0] == 401
    headers = {"E2b-Sandbox-Id": sandbox.sandbox_id, "X-Access-Token": said["wrong-token"]}
    for port, path in ((49983, f"/files?path=/x&signature=v1_{said['wrong-token']}"), (8000, "/")):
        more = {"E2b-Sandbox-Port": str(port), "e2b-traffic-access-token": said["wrong-token"]}
        with pytest.raises(HTTPError):
            urlopen(Request(server.gateway_url + path, headers=headers | more), timeout=60)


def places(server: LocalServer) -> Iterator[tuple[str, bytes]]:
    """All that the server shows or lets others see, but for its files."""
    for pid, text in host_processes():
        yield f"process {pid}", text
    for path in (
        "/metrics",
        "/v2/sandboxes",
        "/sandboxes",
        "/api-keys",
        "/templates",
        "/pools",
        "/secrets",
        "/volumes",
    ):
        yield path, ask(server, "GET", path, server.api_key)[1].encode()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_was_entrusted_is_found_nowhere(talkative: LocalServer, runtime: str) -> None:
    local = {"local key": talkative.api_key.encode()}
    assert [path.name for path in files(talkative.state) if holds(path, local)] == ["local-key"]
    with used(talkative, runtime) as said:
        words = {name: value.encode() for name, value in said.items()}
        found = {where: {name for name, word in words.items() if word in text} for where, text in places(talkative)}
        for path in files(talkative.folder, Path("/run/warren") / talkative.bridge):
            found[str(path)] = holds(path, words) - BELONGS.get(kind(path), set())
        assert {where: names for where, names in found.items() if names} == {}
    after = {str(path): holds(path, words) - {"argument"} for path in files(talkative.folder)}
    assert {where: names for where, names in after.items() if names} == {}


def test_what_the_server_writes_is_for_root_alone(talkative: LocalServer) -> None:
    server = talkative
    written = files(server.state, Path("/run/warren") / server.bridge)
    assert {path.name for path in written if is_open_to_others(path)} <= OPEN
    keys = [path for path in files(server.state) if path.name in ("local-key", "token-seed") or path.suffix == ".key"]
    assert len(keys) >= 3
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}


def remembering(server: LocalServer, word: str) -> set[str]:
    """Build a template whose start command has a word in its memory, and nowhere else. Files that hold the word."""
    start = f'python3 -c \'import time; word = "{word[::-1]}"[::-1]; open("/tmp/up", "w"); time.sleep(9000)\''
    template = Template().from_template("base").set_start_cmd(start, "test -e /tmp/up")
    Template.build(template, "remembering", **server.options)
    boots = set[str]()
    for _ in range(2):
        with Sandbox.create("remembering", timeout=60, **server.options) as box:
            assert box.commands.run("pgrep -fc 'import tim[e]'").stdout == "1\n"
            boots.add(box.files.read("/proc/sys/kernel/random/boot_id"))
    assert len(boots) == 1, "they start from that memory"
    everywhere = files(server.folder, Path("/run/warren") / server.bridge)
    return {str(path) for path in everywhere if holds(path, {"memory": word.encode()})}


@pytest.mark.threat("D6")
@pytest.mark.skipif("runsc" not in RUNTIMES, reason="only gVisor keeps memory")
def test_the_memory_of_a_template_is_sealed_with_the_key(talkative: LocalServer) -> None:
    assert remembering(talkative, planted("memory")) == set()
    talkative.stop()
    key = talkative.settings.pop("WARREN_CHECKPOINT_KEY_FILE")
    talkative.start()
    in_the_open = remembering(talkative, planted("memory"))
    assert in_the_open
    assert all("checkpoints" in Path(path).parts for path in in_the_open)
    talkative.stop()
    talkative.settings["WARREN_CHECKPOINT_KEY_FILE"] = key
    talkative.start()
