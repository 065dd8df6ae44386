"""A Warren sandbox, through the unmodified `e2b` package."""

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection

from e2b import Sandbox
from e2b.envd.process import process_pb

from tests.e2e.local_server import LocalServer

PATH = "/home/user/bench.bin"
LIFE_S = 900
FILL_DEADLINE_S = 120.0
LOOK_EVERY_S = 0.2


@dataclass
class WarrenBox:
    sandbox: Sandbox

    def true(self) -> None:
        """The SDK's own transport and messages, without the shell that `commands.run` puts in front."""
        request = process_pb.StartRequest(process=process_pb.ProcessConfig(cmd="/bin/true"), stdin=False)
        ended = False
        for answer in self.sandbox.commands._rpc.start(request):
            ended = ended or (answer.event is not None and getattr(answer.event.event, "field", "") == "end")
        if not ended:
            raise RuntimeError("cannot find the end of the process")

    def login_true(self) -> None:
        self.sandbox.commands.run("true")

    def echo(self) -> None:
        if self.sandbox.commands.run("echo hello").stdout != "hello\n":
            raise RuntimeError("cannot read the echo")

    def write(self, data: bytes) -> None:
        self.sandbox.files.write(PATH, data)

    def read(self, size: int) -> None:
        if len(self.sandbox.files.read(PATH, format="bytes")) != size:
            raise RuntimeError("cannot read back what was written")

    def delete(self) -> None:
        if not self.sandbox.kill():
            raise RuntimeError("cannot find the sandbox to kill")


@dataclass
class ApiConnection:
    """One that is kept open, with nothing of a client's own work around its requests."""

    http: HTTPConnection
    headers: dict[str, str]

    def create(self) -> str:
        made = json.loads(self._ask("POST", "/v2/sandboxes", 201, json.dumps({"templateID": "base"})))
        return str(made["sandboxID"])

    def kill(self, sandbox_id: str) -> None:
        self._ask("DELETE", f"/sandboxes/{sandbox_id}", 204)

    def _ask(self, method: str, path: str, status: int, body: str | None = None) -> bytes:
        self.http.request(method, path, body, self.headers)
        answer = self.http.getresponse()
        said = answer.read()
        if answer.status != status:
            raise RuntimeError(f"cannot {method} {path}: {answer.status} {said[:200]!r}")
        return said


@dataclass
class WarrenTarget:
    name: str
    server: LocalServer
    runtime: str
    pooled: bool = False
    """Whether its server keeps spares, so that they have to be there before a create is measured."""

    def settle(self) -> None:
        ends = time.monotonic() + FILL_DEADLINE_S
        while self.pooled and not self._is_full():
            if time.monotonic() > ends:
                raise RuntimeError(f"cannot wait for the pool any longer than {FILL_DEADLINE_S:g} s")
            time.sleep(LOOK_EVERY_S)

    def _is_full(self) -> bool:
        levels = json.loads(self.server.run("pool", "list", "--json").stdout)
        mine = [level for level in levels if level["runtime"] == self.runtime]
        return bool(mine) and all(level["ready"] >= level["wanted"] > 0 for level in mine)

    def create(self) -> WarrenBox:
        headers = {"X-Warren-Runtime": self.runtime}
        return WarrenBox(Sandbox.create(timeout=LIFE_S, api_headers=headers, **self.server.options))

    @contextmanager
    def connected(self) -> Iterator[ApiConnection]:
        headers = {
            "X-API-Key": self.server.api_key,
            "X-Warren-Runtime": self.runtime,
            "Content-Type": "application/json",
        }
        with closing(HTTPConnection("127.0.0.1", self.server.api_port, timeout=FILL_DEADLINE_S)) as http:
            yield ApiConnection(http, headers)
