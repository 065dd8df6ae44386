"""`warren template build|import|export|delete|prune` against a server that is a table of answers."""

import asyncio
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from warren.cli.app import run
from warren.cli.machine import LocalAccess, Machine
from warren.contracts.building import FetchedImage
from warren.images.shelf import Shelf
from warren.model.sandbox import Resources
from warren.model.template import Template
from warren.store.sql import SqlStore

MADE = {"templateID": "t1", "buildID": "b1", "public": False, "names": ["app"], "tags": [], "aliases": []}
EROFS = bytes(1024) + b"\xe2\xe1\xf5\xe0" + bytes(3068)
DIGEST = "sha256:" + hashlib.sha256(EROFS).hexdigest()
STATUS = "GET /templates/t1/builds/b1/status"


class Server:
    """Says what a build says, in turn, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[httpx.Request] = []
        self.files_present = False
        self.states: list[dict[str, Any]] = [{"status": "ready", "logEntries": []}]
        self.seen: Callable[[], None] = lambda: None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.asked.append(request)
        what = f"{request.method} {request.url.path}"
        if what == "POST /v3/templates":
            return httpx.Response(202, json=MADE)
        if what == STATUS:
            return httpx.Response(200, json=self.states.pop(0) if len(self.states) > 1 else self.states[0])
        if what.startswith("GET /templates/t1/files/"):
            link = {"present": self.files_present, "url": f"{request.url.copy_with(path='/put/here')}"}
            return httpx.Response(201, json=link)
        if what == "POST /v2/templates/t1/builds/b1":
            self.seen()
            return httpx.Response(202)
        if what == "POST /machine/prune":
            return httpx.Response(200, json={"images": 2, "layers": 3, "bytes": 5_000_000})
        if what.endswith(" /templates/old/settings/idle"):
            ladder = {"freezeAfter": 60, "diskAfter": 1800, "setBy": "template"}
            return httpx.Response(200, json=ladder)
        if what in ("PUT /put/here", "DELETE /templates/old"):
            return httpx.Response(204)
        return httpx.Response(404, json={"code": 404, "error_code": "template_not_found", "message": "not there"})

    def sent(self, method: str, path: str) -> Any:
        return json.loads(next(each for each in self.asked if (each.method, each.url.path) == (method, path)).content)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def machine(server: Server, tmp_path: Path) -> Machine:
    return Machine(
        environ={"E2B_API_KEY": "e2b_test", "WARREN_STATE_DIR": str(tmp_path / "state")},
        is_root=True,
        serve=lambda _: None,
        prepare=lambda settings: LocalAccess("", settings.tls_dir),
        transport=httpx.MockTransport(server),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "My-App"
    made.mkdir()
    (made / "Dockerfile").write_text("FROM alpine\nCOPY app.py /srv/\nCMD python /srv/app.py\n")
    (made / "app.py").write_text("print(1)")
    return made


def test_a_dockerfile_is_built(
    machine: Machine, server: Server, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = {"timestamp": "2026-01-02T03:04:05Z", "level": "info", "message": "made\x1b[2J", "step": "3"}
    server.states = [{"status": "building", "logEntries": [entry]}, {"status": "ready", "logEntries": []}]
    assert run(["template", "build", str(folder), "--cpu", "1", "-t", "v1"], machine) == 0
    said = capsys.readouterr()
    assert said.out.endswith("Template my-app is ready: t1\n")
    assert "[3] made\\x1b[2J" in said.err
    assert server.sent("POST", "/v3/templates") == {"name": "my-app", "tags": ["v1"], "cpuCount": 1}
    start = server.sent("POST", "/v2/templates/t1/builds/b1")
    files = start["steps"][2].pop("filesHash")
    assert len(files) == 64
    assert start == {
        "fromImage": "alpine", "force": False, "startCmd": "python /srv/app.py", "readyCmd": "sleep 20",
        "steps": [
            {"type": "USER", "args": ["root"]}, {"type": "WORKDIR", "args": ["/"]},
            {"type": "COPY", "args": ["app.py", "/srv/", "", ""]},
            {"type": "USER", "args": ["user"]}, {"type": "WORKDIR", "args": ["/home/user"]},
        ],
    }  # fmt: skip
    put = next(each for each in server.asked if each.method == "PUT")
    assert int(put.headers["content-length"]) == len(put.content)
    assert "X-API-KEY" not in put.headers
    with tarfile.open(fileobj=io.BytesIO(put.content)) as archive:
        assert archive.getnames() == ["app.py"]
    assert [each.url.params["logsOffset"] for each in server.asked if each.url.path.endswith("status")] == ["0", "1"]


def test_files_that_are_there_are_not_sent_again(machine: Machine, server: Server, folder: Path) -> None:
    server.files_present = True
    assert run(["template", "build", str(folder), "--json"], machine) == 0
    assert not any(each.method == "PUT" for each in server.asked)


def test_e2b_toml_says_what_the_options_do_not(machine: Machine, server: Server, folder: Path) -> None:
    (folder / "e2b.toml").write_text(
        'template_name = "named"\ndockerfile = "other.Dockerfile"\nstart_cmd = "serve"\nready_cmd = "true"\n'
        "cpu_count = 4\nmemory_mb = 512\n"
    )
    (folder / "other.Dockerfile").write_text("FROM debian\nCMD ignored\n")
    assert run(["template", "build", str(folder), "--memory", "256"], machine) == 0
    assert server.sent("POST", "/v3/templates") == {"name": "named", "tags": [], "cpuCount": 4, "memoryMB": 256}
    start = server.sent("POST", "/v2/templates/t1/builds/b1")
    assert (start["fromImage"], start["startCmd"], start["readyCmd"]) == ("debian", "serve", "true")


def test_a_failure_names_the_line(
    machine: Machine, server: Server, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.states = [{"status": "error", "logEntries": [], "reason": {"message": "exit status 1", "step": "3"}}]
    assert run(["template", "build", str(folder)], machine) == 1
    assert "exit status 1 (line 2 of the Dockerfile)" in capsys.readouterr().err


def test_a_folder_without_a_dockerfile(machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["template", "build", str(tmp_path)], machine) == 1
    assert "cannot find a Dockerfile" in capsys.readouterr().err


def test_delete_goes_on_after_one_that_is_not_there(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["template", "delete", "none", "old", "--json"], machine) == 1
    said = capsys.readouterr()
    assert json.loads(said.out) == {"deleted": ["old"], "failed": {"none": "not there"}}


def test_a_ladder_is_steps_or_none_at_all_or_the_server_s(
    machine: Machine, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    for both in (["--never", "--default"], ["--freeze", "1", "--never"], ["--disk", "0"]):
        assert run(["template", "idle", "old", *both], machine) == 2
    assert not server.asked
    assert run(["template", "idle", "old", "--freeze", "60", "--disk", "1800"], machine) == 0
    assert server.sent("PUT", "/templates/old/settings/idle") == {"freezeAfter": 60, "diskAfter": 1800}
    said = capsys.readouterr()
    assert [line.split() for line in said.out.splitlines()] == [
        ["freeze", "after", "1m", "00s"],
        ["reclaim", "never"],
        ["disk", "after", "30m", "00s"],
    ]


async def _put(machine: Machine, template: Template) -> None:
    store = SqlStore(machine.settings().database)
    await store.open()
    await store.put_template(template)
    await store.close()


@pytest.fixture
def exported(machine: Machine, tmp_path: Path) -> Path:
    """A template of this machine, written into a file."""
    settings = machine.settings()
    home = settings.templates_dir / DIGEST.removeprefix("sha256:")
    home.mkdir(parents=True)
    (home / "rootfs.erofs").write_bytes(EROFS)
    template = Template(
        id="t" + "0" * 19, project_id=None, names=("app",), build_id="b", digest=DIGEST,
        resources=Resources(cpu_count=1, memory_mb=256, disk_mb=512), created_at=datetime(2026, 1, 1, tzinfo=UTC),
        default_user="root", envs={"A": "1"}, start_command="serve",
    )  # fmt: skip
    asyncio.run(_put(machine, template))
    file = tmp_path / "app.template"
    assert run(["template", "export", "app", str(file)], machine) == 0
    return file


def test_a_template_comes_through_a_file(exported: Path, machine: Machine, server: Server, tmp_path: Path) -> None:
    there = Machine(
        {**machine.environ, "WARREN_STATE_DIR": str(tmp_path / "elsewhere")},
        True, machine.serve, machine.prepare, machine.transport,
    )  # fmt: skip
    shelf, offers = Shelf(there.settings().images_dir), list[FetchedImage | None]()
    server.seen = lambda: offers.append(shelf.offered(json.loads(server.asked[-1].content)["fromImage"]))
    assert run(["template", "import", str(exported)], there) == 0
    assert server.sent("POST", "/v3/templates") == {"name": "app", "cpuCount": 1, "memoryMB": 256, "minFreeDiskMb": 512}
    start = server.sent("POST", "/v2/templates/t1/builds/b1")
    assert start["steps"] == [{"type": "USER", "args": ["root"]}]
    assert start["startCmd"] == "serve"
    assert offers == [FetchedImage(DIGEST, envs={"A": "1"})]
    assert shelf.offered(start["fromImage"]) is None
    image = there.settings().templates_dir / DIGEST.removeprefix("sha256:") / "rootfs.erofs"
    assert image.read_bytes() == EROFS


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d, i: ({**d, "size": 5}, i), "of the size"),
        (lambda d, i: (d, i[:-1] + b"x"), "damaged"),
        (lambda d, i: ({**d, "digest": "sha256:../../etc"}, i), "cannot read the digest"),
        (lambda d, i: ([], i), "cannot read the template.json"),
        (
            lambda d, i: (
                {**d, "size": 9, "digest": "sha256:" + hashlib.sha256(b"not erofs").hexdigest()},
                b"not erofs",
            ),
            "damaged",
        ),
    ],
)
def test_files_that_are_not_what_they_say_are_refused(
    exported: Path, machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    change: Callable[[Any, bytes], tuple[Any, bytes]], words: str,
) -> None:  # fmt: skip
    with tarfile.open(exported) as archive:
        contents = [archive.extractfile(member).read() for member in archive]  # type: ignore[union-attr]
    description, image = change(json.loads(contents[0]), contents[1])
    spoilt = tmp_path / "spoilt"
    with tarfile.open(spoilt, "w") as archive:
        for name, content in (("template.json", json.dumps(description).encode()), ("rootfs.erofs", image)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    assert run(["template", "import", str(spoilt)], machine) == 1
    assert words in capsys.readouterr().err


def test_export_refuses_a_damaged_image_and_leaves_no_file(exported: Path, machine: Machine, tmp_path: Path) -> None:
    image = machine.settings().templates_dir / DIGEST.removeprefix("sha256:") / "rootfs.erofs"
    image.write_bytes(EROFS[:-1] + b"x")
    assert run(["template", "export", "app", str(tmp_path / "again")], machine) == 1
    assert run(["template", "export", "app", str(exported)], machine) == 1
    assert [path for path in tmp_path.iterdir() if "again" in path.name] == []


def test_prune_asks_this_machine_s_own_server_with_its_root_s_key(
    machine: Machine, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    state = machine.settings().state_dir
    state.mkdir()
    (state / "local-key").write_text("e2b_root\n")
    elsewhere = {**machine.environ, "E2B_API_URL": "http://elsewhere:1"}
    there = Machine(elsewhere, True, machine.serve, machine.prepare, machine.transport)
    assert run(["template", "prune"], there) == 0
    assert capsys.readouterr().out == "2 images and 3 layers deleted, 5 MB\n"
    assert server.asked[-1].headers["X-API-KEY"] == "e2b_root"
    assert server.asked[-1].url.host == "127.0.0.1"


def test_only_root_reaches_the_files(machine: Machine, exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = Machine(machine.environ, False, machine.serve, machine.prepare, machine.transport)
    for words in (["import", str(exported)], ["export", "app", "x"], ["prune"]):
        assert run(["template", *words], other) == 1
        assert "run this as root" in capsys.readouterr().err
