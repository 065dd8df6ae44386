"""Running code, through the unmodified `e2b-code-interpreter`; beside it the bare Jupyter kernel, in one sandbox."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from e2b_code_interpreter import Sandbox

from bench.rows import Row, count
from bench.samples import Samples, milliseconds
from bench.target import Target
from bench.warren_target import LIFE_S, WarrenTarget

TEMPLATE = "code-interpreter"
SPARES = 2
CODE = "1 + 1"
BARE = """
import statistics, time
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

specs = KernelSpecManager(kernel_dirs=["/opt/code-interpreter/kernels"], ensure_native_kernel=False)
manager = KernelManager(kernel_spec_manager=specs, transport="ipc", ip="/tmp/bare")
manager.start_kernel()
client = manager.client()
client.start_channels()
client.wait_for_ready()
taken = []
for _ in range(%d):
    started = time.perf_counter()
    request = client.execute("1 + 1")
    while True:
        message = client.get_iopub_msg()
        if message["parent_header"].get("msg_id") == request and message["content"].get("execution_state") == "idle":
            break
    taken.append((time.perf_counter() - started) * 1000)
manager.shutdown_kernel(now=True)
print(statistics.median(taken))
"""
"""What one execution takes without any server of ours, in milliseconds."""


@contextmanager
def _ready(target: Target) -> Iterator[Sandbox]:
    warren = cast("WarrenTarget", target)
    warren.settle()
    headers = {"X-Warren-Runtime": warren.runtime}
    with Sandbox.create(TEMPLATE, timeout=LIFE_S, api_headers=headers, **warren.server.options) as sandbox:
        yield sandbox


def _run(sandbox: Sandbox) -> float:
    return milliseconds(lambda: _checked(sandbox))


def _checked(sandbox: Sandbox) -> None:
    if sandbox.run_code(CODE).text != "2":
        raise RuntimeError("cannot read the result")


def _first(target: Target, scale: float) -> Samples:
    def once() -> float:
        with _ready(target) as sandbox:
            return _run(sandbox)

    return Samples().measure(count(8, scale), once)


def _above_bare(target: Target, scale: float) -> Samples:
    times = count(40, scale)
    with _ready(target) as sandbox:
        _run(sandbox)
        through = Samples().measure(times, lambda: _run(sandbox))
        sandbox.files.write("/tmp/bare.py", BARE % times)
        command = "/opt/code-interpreter/venv/bin/python /tmp/bare.py"
        bare = float(sandbox.commands.run(command, user="root", timeout=300).stdout)
    return Samples([value - bare for value in through.values], through.failures)


ROWS = (
    Row("first 1 + 1 after create, code interpreter", "ms", _first, {"runsc": 100, "crun": 60}),
    Row("1 + 1, above the bare Jupyter kernel", "ms", _above_bare, {"runsc": 15, "crun": 15}),
)
