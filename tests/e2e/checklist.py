"""Which test proves which line of the wire contract's feature checklist; `python -m tests.e2e.checklist` prints it.

The table between the two marks in SPEC.md is this module's output, and `test_checklist.py` holds it to that.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
SPEC = HERE.parent.parent / "SPEC.md"
BEGIN, END = "<!-- checklist: begin -->", "<!-- checklist: end -->"

LINES = {
    "C01": "API key authentication, 401 on a bad key",
    "C02": "single-origin mode over http",
    "C03": "domain mode over TLS",
    "C06": "retry contract: `Should-Retry`",
    "C07": "typed errors for every status and Connect code",
    "S01": "create from template id, alias, `name:tag`, snapshot id, default `base`",
    "S02": "timeout on create and its defaults",
    "S03": "metadata",
    "S04": "sandbox-wide environment",
    "S05": "idempotency key",
    "S06": "create and connect of older clients",
    "S07": "connect to a running or a paused sandbox, with its memory or rebooted",
    "S08": "set_timeout: shorter, longer, 0",
    "S09": "kill, and False on what is not there",
    "S10": "is_running; the context manager kills",
    "S11": "details: lifecycle, pause, network",
    "S12": "list with every filter, order, pages",
    "S13": "metrics",
    "S14": "logs",
    "S15": "pause with memory: processes, boot id, loopback sockets",
    "S16": "pause of files alone; strict",
    "S17": "at the deadline: kill or pause; wake by traffic",
    "S18": "guests that do not answer, servers that are busy",
    "S19": "fork 1 to 20, each with its own outcome",
    "S20": "snapshots: create, name, list, delete, create from one",
    "S21": "public hosts, and their error bodies",
    "S23": "volumes mounted at create",
    "N01": "closed egress",
    "N04": "private traffic and its token",
    "N05": "masked request host",
    "P01": "run: output, callbacks, exit code",
    "P02": "background commands",
    "P03": "environment, directory, user, sudo",
    "P04": "timeouts",
    "P05": "stdin",
    "P06": "streamed input",
    "P07": "list, connect, kill by pid",
    "P08": "output not retained",
    "P09": "special characters, large and binary output",
    "P10": "a sandbox killed while a command runs",
    "T01": "terminal: create",
    "T02": "terminal: input",
    "T03": "terminal: resize",
    "T04": "terminal: connect",
    "T05": "terminal: kill",
    "F01": "read text, bytes, stream, gzip",
    "F02": "write text, bytes, file objects, iterators, gzip",
    "F03": "many files, parents, overwriting",
    "F04": "metadata of files",
    "F05": "list with depth",
    "F06": "info, links",
    "F07": "exists",
    "F08": "make_dir",
    "F09": "rename",
    "F10": "remove",
    "F11": "watch_dir, polled and streamed",
    "F12": "signed URLs",
    "F13": "users, paths, no space",
    "G01": "git",
    "V01": "volumes: create, list, info, connect, destroy",
    "V02": "files of volumes: list, make_dir, info, exists, metadata, read, write, remove",
    "B01": "templates: build, build in the background, status, streamed logs",
    "B02": "templates: begun from an image or a template",
    "B03": "templates: steps",
    "B04": "templates: start and ready command, up when create returns",
    "B05": "templates: layers from the cache, skip_cache",
    "B06": "templates: sizes",
    "B07": "templates: names and tags",
    "B08": "templates: a failure names its step",
    "B09": "templates: list, publish, delete",
    "D01": "desktop: resolution, dpi, display",
    "D02": "desktop: screenshots",
    "D03": "desktop: pointer, buttons, wheel, drag",
    "D04": "desktop: typing, keys",
    "D05": "desktop: screen size",
    "D06": "desktop: open, launch, wait",
    "D07": "desktop: windows and their titles",
    "D08": "desktop: stream, its key, seen in a browser",
    "K01": "secrets: create, update, list, info, exists, destroy; values are kept and not yet used",
    "L01": "`e2b template`: create, list, publish, unpublish, delete",
    "L02": "`e2b sandbox`: create, connect, exec, list, info, logs, metrics, pause, resume, snapshot, kill",
    "I01": "code in Python, JavaScript, TypeScript, R, Java, Bash",
    "I02": "contexts: create, list, restart, remove",
    "I03": "callbacks, streamed and whole output",
    "I04": "results: every form of a value, charts, data frames, images",
    "I05": "environment of the sandbox and of one execution, in every language",
    "I06": "timeouts interrupt the code; calls take turns",
    "I07": "kernels and sandboxes that end while code runs are said",
    "I08": "code behind private traffic",
    "I09": "kernels and server that end are started anew",
}
"""The lines that this version serves, in the order of the contract's chapters."""


def proofs() -> dict[str, list[str]]:
    """line -> `module::test`, from the `covers` marks in the source."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(HERE.glob("test_*.py")):
        for function in ast.parse(path.read_text()).body:
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for line in _marked(function):
                    found[line].append(f"{path.stem}::{function.name}")
    return dict(found)


def table() -> str:
    """One row per line; tests of one module are listed together."""
    rows = ["| Line | What | Proved by |", "|---|---|---|"]
    everything = proofs()
    for line, what in LINES.items():
        modules: dict[str, list[str]] = defaultdict(list)
        for proof in everything.get(line, []):
            module, _, test = proof.partition("::")
            modules[module].append(f"`{test}`")
        cell = "<br>".join(f"**{module}**: {', '.join(tests)}" for module, tests in modules.items())
        rows.append(f"| {line} | {what} | {cell or 'nothing'} |")
    return "\n".join(rows)


def _marked(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.covers":
            yield from (ast.literal_eval(argument) for argument in decorator.args)


if __name__ == "__main__":
    print(table())
