"""The JavaScript kernel: ipykernel's protocol before a Node process that runs the code (evaluate.cjs)."""

import asyncio
import codecs
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from application import Application, leave_folder
from ipykernel.kernelbase import Kernel

NODE = ("/usr/local/bin/node", "--no-warnings", "--expose-internals", "--require=/usr/lib/warren/fork.cjs")
TYPESCRIPT_MARK = "/*typescript*/"
"""Before code that the server was given as TypeScript."""
CHUNK = 64 * 1024


class Output:
    """One of Node's output pipes, sent on as it comes."""

    def __init__(self, kernel: "JavaScriptKernel", name: str, descriptor: int) -> None:
        self._kernel, self._name, self._descriptor = kernel, name, descriptor
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        os.set_blocking(descriptor, False)

    def drain(self) -> None:
        while True:
            try:
                chunk = os.read(self._descriptor, CHUNK)
            except BlockingIOError:
                return
            if not chunk:
                os._exit(1)  # Node has ended, and this kernel with it: the server sees that and says so
            text = self._decoder.decode(chunk)
            if text and not self._kernel.is_silent:
                self._kernel.publish("stream", {"name": self._name, "text": text})


class JavaScriptKernel(Kernel):
    implementation = "code-interpreter-javascript"
    implementation_version = "1"
    banner = "Node"
    language_info = {"name": "javascript", "mimetype": "text/javascript", "file_extension": ".js"}  # noqa: RUF012

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.is_silent = False
        self._node: subprocess.Popen[bytes] | None = None
        self._outputs: list[Output] = []
        self._answers = b""
        self._waiting: asyncio.Future[dict[str, Any]] | None = None
        self._request: Any = None

    def publish(self, kind: str, content: dict[str, Any]) -> None:
        """Not `send_response`: output is read outside of the context in which ipykernel knows the request."""
        self.session.send(self.iopub_socket, kind, content, parent=self._request, ident=kind.encode())

    def _start(self) -> None:
        requests, self._requests = os.pipe()
        self._replies, replies = os.pipe()
        self._node = subprocess.Popen(
            [*NODE, str(Path(__file__).with_name("javascript") / "evaluate.cjs"), str(requests), str(replies)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=(requests, replies),
        )  # fmt: skip
        os.close(requests)
        os.close(replies)
        os.set_blocking(self._replies, False)
        loop = asyncio.get_running_loop()
        for name, pipe in (("stdout", self._node.stdout), ("stderr", self._node.stderr)):
            assert pipe is not None  # noqa: S101
            output = Output(self, name, pipe.fileno())
            self._outputs.append(output)
            loop.add_reader(pipe.fileno(), output.drain)
        loop.add_reader(self._replies, self._read_answer)

    def _read_answer(self) -> None:
        chunk = os.read(self._replies, CHUNK)
        if not chunk:
            os._exit(1)
        self._answers += chunk
        if self._answers.endswith(b"\n"):
            for output in self._outputs:  # Node wrote these before its answer
                output.drain()
            answer, self._answers = json.loads(self._answers), b""
            if self._waiting is not None and not self._waiting.done():
                self._waiting.set_result(answer)

    async def do_execute(self, code: str, silent: bool, *_: Any, **__: Any) -> dict[str, Any]:
        if self._node is None:
            self._start()
        self.is_silent, self._request = silent, self.get_parent("shell")
        typescript, code = code.startswith(TYPESCRIPT_MARK), code.removeprefix(TYPESCRIPT_MARK)
        self._waiting = asyncio.get_running_loop().create_future()
        request = {"id": self.execution_count, "code": code, "typescript": typescript}
        await self._send(request)
        answer = await self._waiting
        if "error" in answer:
            error = answer["error"]
            content = {"ename": error["name"], "evalue": error["value"], "traceback": error["traceback"].split("\n")}
            if not silent:
                self.publish("error", content)
            return {"status": "error", "execution_count": self.execution_count, **content}
        if "data" in answer and not silent:
            result = {"data": answer["data"], "metadata": {}, "execution_count": self.execution_count}
            self.publish("execute_result", result)
        return {"status": "ok", "execution_count": self.execution_count, "payload": [], "user_expressions": {}}

    async def _send(self, request: dict[str, Any]) -> None:
        """Off the loop, for code larger than a pipe: Node's output has to be taken meanwhile."""
        line = json.dumps(request).encode() + b"\n"
        await asyncio.get_running_loop().run_in_executor(None, self._write, line)

    def _write(self, line: bytes) -> None:
        while line:
            line = line[os.write(self._requests, line) :]

    async def interrupt_request(self, stream: Any, ident: Any, parent: Any) -> None:
        if self._node is not None:
            self._node.send_signal(signal.SIGINT)
        self.session.send(stream, "interrupt_reply", {"status": "ok"}, parent, ident=ident)


if __name__ == "__main__":
    leave_folder()
    Application.launch_instance(kernel_class=JavaScriptKernel)
