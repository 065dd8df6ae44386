import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import httpx
import pytest

from warren.cli.app import root, run
from warren.cli.machine import LocalAccess, Machine
from warren.model.errors import Unavailable
from warren.settings import Settings

ROW = {
    "sandboxID": "i1", "templateID": "t1", "alias": "base", "runtime": "crun", "cpuCount": 2, "memoryMB": 1024,
    "diskSizeMB": 2048, "startedAt": "2026-01-02T03:04:05.678901Z", "endAt": "2999-01-01T00:00:00Z",
    "state": "running", "metadata": {"who": "me\x1b[2J"},
}  # fmt: skip
KEY = {
    "id": "k1", "name": "first", "createdAt": "2026-01-02T03:04:05Z", "lastUsed": None,
    "mask": {"prefix": "e2b_", "maskedValuePrefix": "ab", "maskedValueSuffix": "wxyz"},
}  # fmt: skip
Answer = tuple[int, Any] | Exception


class Server:
    """Answers from a table of "METHOD path" and remembers what was asked."""

    def __init__(self, **_: object) -> None:
        self.answers: dict[str, Answer] = {"GET /health": (204, None)}
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers.get(
            f"{request.method} {request.url.path}", (404, {"code": 404, "message": "cannot find"})
        )
        if isinstance(answer, Exception):
            raise answer
        status, body = answer
        return httpx.Response(status) if body is None else httpx.Response(status, json=body)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def machine(server: Server, tmp_path: Path) -> Machine:
    served: list[Settings] = []
    return Machine(
        environ={"E2B_API_KEY": "e2b_test", "WARREN_STATE_DIR": str(tmp_path / "state")},
        is_root=True,
        serve=served.append,
        prepare=lambda settings: LocalAccess("e2b_it's", settings.tls_dir / "bundle.pem"),
        transport=httpx.MockTransport(server),
    )


@pytest.fixture
def warren(machine: Machine, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(arguments, machine)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


Warren = Callable[..., tuple[int, str, str]]


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def test_every_command_has_help_and_those_that_tell_something_have_json() -> None:
    for path, command in commands(root):
        assert command.help, path
        has_json = any("--json" in parameter.opts for parameter in command.params)
        assert has_json != (path[-1] in {"serve", "exec", "shell", "cp", "completion", "uninstall"}), path


def test_sandboxes_are_listed_for_people_and_programs(warren: Warren, server: Server) -> None:
    server.answers["GET /v2/sandboxes"] = (200, [ROW])
    code, table, _ = warren("sandbox", "list", "-m", "a=b c&d", "--template", "base")
    assert code == 0
    assert "i1" in table and "who=me\\x1b[2J" in table and "2026-01-02 03:04:05Z" in table
    assert server.asked[-1].url.params["metadata"] == "a=b%20c%26d"
    assert server.asked[-1].url.params["template"] == "base"
    assert server.asked[-1].headers["X-API-KEY"] == "e2b_test"
    assert json.loads(warren("sandbox", "list", "--json")[1]) == [ROW]


def test_an_empty_list_says_what_to_do_and_nothing_on_stdout(warren: Warren, server: Server) -> None:
    server.answers["GET /v2/sandboxes"] = (200, [])
    assert warren("sandbox", "list") == (0, "", "There is no sandbox. Create one: warren sandbox create\n")


def test_create_sends_only_what_was_given(warren: Warren, server: Server) -> None:
    server.answers["POST /v2/sandboxes"] = (201, {"sandboxID": "i9"})
    assert warren("sandbox", "create")[:2] == (0, "i9\n")
    assert json.loads(server.asked[-1].content) == {"templateID": "base", "metadata": {}, "envVars": {}}
    warren("sandbox", "create", "py", "--runtime", "crun", "--cpu", "1", "--memory", "256", "--disk", "99",
           "--timeout", "5", "--no-internet", "-e", "A=1=2", "-m", "k=v")  # fmt: skip
    assert json.loads(server.asked[-1].content) == {
        "templateID": "py", "metadata": {"k": "v"}, "envVars": {"A": "1=2"}, "runtime": "crun", "cpuCount": 1,
        "memoryMB": 256, "diskMB": 99, "timeout": 5, "allow_internet_access": False,
    }  # fmt: skip


def test_info_shows_one_sandbox(warren: Warren, server: Server) -> None:
    server.answers["GET /sandboxes/i1"] = (200, ROW | {"domain": "d:1", "allowInternetAccess": False})
    code, text, _ = warren("sandbox", "info", "i1")
    assert code == 0
    assert "PORT-i1.d:1" in text and "2 CPU, 1024 MiB memory, 2048 MiB disk" in text


def test_kill_goes_on_after_one_that_is_not_there(warren: Warren, server: Server) -> None:
    missing = {"code": 404, "error_code": "sandbox_not_found", "message": 'Sandbox "i0" doesn\'t exist'}
    server.answers |= {"DELETE /sandboxes/i0": (404, missing), "DELETE /sandboxes/i1": (204, None)}
    code, out, err = warren("sandbox", "kill", "i0", "i1", "--json")
    assert (code, json.loads(out)["killed"]) == (1, ["i1"])
    assert err == 'warren: cannot kill it: Sandbox "i0" doesn\'t exist\n'
    server.answers["GET /v2/sandboxes"] = (200, [ROW])
    assert warren("sandbox", "kill", "--all")[0] == 0


def test_logs_are_printed_once_each(warren: Warren, server: Server) -> None:
    entry = {
        "timestamp": "2026-01-02T03:04:05.5Z",
        "level": "warn",
        "message": "a\nb",
        "fields": {"logger": "g", "n": 1},
    }
    server.answers["GET /v2/sandboxes/i1/logs"] = (200, {"logs": [entry]})
    assert warren("sandbox", "logs", "i1", "--level", "warn")[1] == "2026-01-02 03:04:05Z warn  g a\\nb n=1\n"
    assert server.asked[-1].url.params["level"] == "warn"
    assert json.loads(warren("sandbox", "logs", "i1", "--json", "--follow")[1]) == entry


def test_keys_go_through_a_server_that_runs(warren: Warren, server: Server) -> None:
    server.answers |= {
        "GET /api-keys": (200, [KEY]),
        "POST /api-keys": (201, KEY | {"key": "e2b_secret"}),
        "DELETE /api-keys/k1": (204, None),
    }
    assert warren("key", "create", "first") == (0, "e2b_secret\n", "Keep it: it cannot be shown again.\n")
    assert "e2b_ab...wxyz" in warren("key", "list")[1]
    assert warren("key", "revoke", "first")[0] == 0
    assert server.asked[-1].method == "DELETE"


def test_keys_work_on_the_database_while_no_server_runs(warren: Warren, server: Server) -> None:
    server.answers["GET /health"] = httpx.ConnectError("refused")
    made = json.loads(warren("key", "create", "one", "--json")[1])
    assert made["key"].startswith("e2b_")
    assert [row["name"] for row in json.loads(warren("key", "list", "--json")[1])] == ["one"]
    assert warren("key", "revoke", made["id"])[0] == 0
    assert warren("key", "revoke", "one")[2].startswith("warren: cannot find a key")
    assert json.loads(warren("key", "list", "--json")[1]) == []


def test_a_name_of_two_keys_is_not_guessed(warren: Warren, server: Server) -> None:
    server.answers["GET /api-keys"] = (200, [KEY, KEY | {"id": "k2"}])
    code, _, err = warren("key", "revoke", "first")
    assert (code, "give the id" in err) == (1, True)


def test_env_can_be_evaluated_by_a_shell(warren: Warren, tmp_path: Path) -> None:
    code, text, _ = warren("env")
    assert code == 0
    assert text.splitlines() == [
        "export E2B_API_KEY='e2b_it'\"'\"'s'",
        "export E2B_API_URL=http://127.0.0.1:3000",
        "export E2B_SANDBOX_URL=http://127.0.0.1:3002",
        "export E2B_VOLUME_API_URL=http://127.0.0.1:3000",
        "export E2B_DOMAIN=e2b.localhost:3443",
        f"export SSL_CERT_FILE={tmp_path}/state/tls/bundle.pem",
        f"export NODE_EXTRA_CA_CERTS={tmp_path}/state/tls/bundle.pem",
    ]


def test_info_tells_whether_the_server_is_up(warren: Warren, server: Server) -> None:
    server.answers["GET /v2/sandboxes"] = (200, [])
    assert json.loads(warren("info", "--json")[1])["isUp"] is True
    server.answers["GET /health"] = httpx.ConnectError("refused")
    assert json.loads(warren("info", "--json")[1])["isUp"] is False


def test_templates_and_version(warren: Warren, server: Server) -> None:
    row = {"templateID": "t1", "names": ["base", "b"], "cpuCount": 2, "memoryMB": 1, "diskSizeMB": 2, "createdAt": None}
    server.answers["GET /templates"] = (200, [row])
    assert "base, b" in warren("template", "list")[1]
    assert json.loads(warren("version", "--json")[1])["version"] in warren("version")[1]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(warren: Warren, shell: str) -> None:
    code, text, _ = warren("completion", shell)
    assert (code, "_WARREN_COMPLETE" in text) == (0, True)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.ConnectError("refused"), "cannot reach the server at http://127.0.0.1:3000"),
        (httpx.ReadTimeout("late"), "cannot get an answer"),
        (
            (401, {"code": 401, "message": "cannot accept this API key"}),
            "cannot accept this API key (the key comes from",
        ),
        ((500, {"code": 500, "message": "cannot\x1b[2J do"}), "cannot\\x1b[2J do"),
        ((502, None), "is this a Warren server?"),
        ((404, ["no", "error"]), "is this a Warren server?"),
    ],
)
def test_failures_are_one_line_and_exit_code_1(warren: Warren, server: Server, answer: Answer, said: str) -> None:
    server.answers["GET /templates"] = answer
    code, out, err = warren("template", "list")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("warren: ")
    assert said in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("sandbox", "list", "--nonsense"),
        ("sandbox", "create", "-e", "no-value"),
        ("sandbox", "create", "--timeout", "0"),
        ("sandbox", "kill"),
        ("sandbox", "kill", "--all", "i1"),
        ("sandbox", "exec", "i1"),
        ("sandbox", "exec", "i1", "--user", "root", "id"),
        ("key", "create"),
    ],
)
def test_wrong_calls_have_exit_code_2(warren: Warren, arguments: tuple[str, ...]) -> None:
    code, out, err = warren(*arguments)
    assert (code, out) == (2, "")
    assert err


def test_a_bad_setting_is_named(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    bad = Machine({"WARREN_API_PORT": "x"}, True, machine.serve, machine.prepare, machine.transport)
    assert run(["info"], bad) == 1
    assert "WARREN_API_PORT" in capsys.readouterr().err


def test_serve_needs_root_and_tells_the_first_cause(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_: Settings) -> None:
        raise BaseExceptionGroup("several", [Unavailable("cannot listen on 3000"), ValueError("a consequence")])

    ordinary = Machine(machine.environ, False, machine.serve, machine.prepare)
    assert run(["serve"], machine) == 0
    assert run(["serve"], ordinary) == 1
    assert "sudo" in capsys.readouterr().err
    assert run(["serve"], Machine(machine.environ, True, fail, machine.prepare)) == 1
    assert capsys.readouterr().err == "warren: cannot listen on 3000\n"


def test_top_shows_what_each_sandbox_uses(warren: Warren, server: Server) -> None:
    other = ROW | {"sandboxID": "i2"}
    sample = {
        "cpuUsedPct": 150.4, "cpuCount": 2, "memUsed": 300 << 20, "memTotal": 1 << 30, "diskUsed": 5 << 20,
        "diskTotal": 2 << 30,
    }  # fmt: skip
    server.answers |= {
        "GET /v2/sandboxes": (200, [ROW, other]),
        "GET /sandboxes/metrics": (200, {"sandboxes": {"i2": sample}}),
    }
    code, table, _ = warren("top", "--once")
    assert code == 0
    assert "150 % of 2" in table and "300 of 1024 MiB" in table and "5 of 2048 MiB" in table
    assert table.index("i2") < table.index("i1"), "the busiest first"
    assert server.asked[-1].url.params["sandbox_ids"] == "i1,i2"
    rows = json.loads(warren("top", "--json")[1])
    assert [(row["sandboxID"], row["memUsed"]) for row in rows] == [("i2", 300 << 20), ("i1", None)]
    assert rows[0]["ageSeconds"] > 0
