"""Code run through the unmodified `e2b-code-interpreter`: languages, results, output, contexts, environment."""

import base64
import json
from typing import Any

import pytest
from e2b import NotFoundException, SandboxException, TimeoutException
from e2b_code_interpreter import AsyncSandbox, Sandbox

from tests.e2e.interpreter import LIFE_S, TEST_DEADLINE_S, interpreter, texts

__all__ = ["interpreter"]
pytestmark = pytest.mark.timeout(TEST_DEADLINE_S)


@pytest.mark.covers("I01")
@pytest.mark.parametrize(
    ("language", "first", "then", "text"),
    [
        ("python", "x = 20", "x + 1", "21"),
        (" Python ", "text = 'é'", "text", "é"),
        ("js", "let seen = await Promise.resolve('late')", "seen", "late"),
        (
            "javascript",
            'import { join } from "node:path"; const os = await import("os")',
            'join("a", String(os.EOL.length))',
            "a/1",
        ),
        ("ts", "interface P { n: number }; enum E { A = 4 }; const p: P = { n: 38 }", "p.n + E.A", "42"),
        ("r", "y <- c(1, 2, 3)", "sum(y)", "[1] 6"),
        ("java", "int base = 40;", "base + 2", "42"),
    ],
)
def test_each_language_keeps_its_state(interpreter: Sandbox, language: str, first: str, then: str, text: str) -> None:
    assert interpreter.run_code(first, language=language).error is None
    execution = interpreter.run_code(then, language=language)
    assert execution.error is None
    assert execution.text == text


@pytest.mark.covers("I01")
def test_bash_keeps_its_state_and_starts_at_home(interpreter: Sandbox) -> None:
    interpreter.run_code("cd /tmp; name=warren", language="bash")
    assert texts(interpreter.run_code("echo $name in $PWD", language="bash").logs.stdout) == "warren in /tmp\n"
    assert interpreter.run_code("false", language="bash").error is not None
    assert interpreter.run_code("import os; os.getcwd()").text == "/home/user"


@pytest.mark.covers("I01", "I03")
@pytest.mark.parametrize(
    ("language", "code", "lines"),
    [
        ("python", "print('Hel\u2028lo')", ["Hel\u2028lo\n"]),
        ("js", "console.log('Hello')", ["Hello\n"]),
        ("java", 'System.out.println("Hello");', ["Hello", "\n"]),
        ("r", 'cat("Hello\\n")', ["Hello\n"]),
        ("bash", "echo Hello", ["Hello\n"]),
    ],
)
def test_output_arrives_as_it_is_written(interpreter: Sandbox, language: str, code: str, lines: list[str]) -> None:
    heard: list[str] = []
    execution = interpreter.run_code(code, language=language, on_stdout=lambda message: heard.append(message.line))
    assert execution.logs.stdout == heard == lines


@pytest.mark.covers("I03")
def test_every_callback_is_called(interpreter: Sandbox) -> None:
    heard: list[str] = []
    execution = interpreter.run_code(
        "import sys\nprint('out')\nprint('err', file=sys.stderr)\ndisplay('shown')\nraise ValueError('no')",
        on_stdout=lambda message: heard.append(f"out {message.line.strip()} {bool(message.timestamp)}"),
        on_stderr=lambda message: heard.append(f"err {message.line.strip()}"),
        on_result=lambda result: heard.append(f"result {result.text} {result.is_main_result}"),
        on_error=lambda error: heard.append(f"error {error.name}: {error.value}"),
    )
    assert sorted(heard) == ["err err", "error ValueError: no", "out out True", "result shown False"]
    assert execution.error is not None
    assert "ValueError" in execution.error.traceback
    count = execution.execution_count or 0
    assert interpreter.run_code("1").execution_count == count + 1


@pytest.mark.covers("I03")
def test_much_output_is_whole(interpreter: Sandbox) -> None:
    for code, language in (
        ("for n in range(20000): print(n)", "python"),
        ("for (let n = 0; n < 20000; n++) console.log(n)", "js"),
        ("seq 0 19999", "bash"),
    ):
        numbers = texts(interpreter.run_code(code, language=language).logs.stdout).split()
        assert numbers == [str(number) for number in range(20000)]


@pytest.mark.covers("I04")
def test_a_data_frame_is_text_html_and_data(interpreter: Sandbox) -> None:
    execution = interpreter.run_code(
        "import pandas as pd\n"
        "pd.DataFrame({'n': [1, 2], 'x': [0.5, float('nan')], 'd': pd.to_datetime(['2024-05-06', None])})"
    )
    (result,) = execution.results
    assert set(result.formats()) == {"text", "html", "data"}
    assert result.data == {"n": [1, 2], "x": [0.5, None], "d": ["2024-05-06T00:00:00", None]}


@pytest.mark.covers("I04")
@pytest.mark.parametrize(
    ("code", "json_value"),
    [("{'a': [1, None]}", {"a": [1, None]}), ("[1, 'x']", [1, "x"]), ("{'n': float('nan')}", None)],
)
def test_dictionaries_and_lists_are_json_too(interpreter: Sandbox, code: str, json_value: Any) -> None:
    (result,) = interpreter.run_code(code).results
    assert result.is_main_result
    assert result.json == json_value
    json.dumps(result.text)


AXES = "title='Runs', xlabel='time (s)', ylabel='speed [m/s]'"
NAMED = {"title": "Runs", "x_label": "time (s)", "x_unit": "s", "y_label": "speed [m/s]", "y_unit": "m/s"}
BARE = {"title": None, "x_label": None, "x_unit": None, "y_label": None, "y_unit": None}
LINE = {
    "type": "line", **BARE, "x_scale": "linear", "y_scale": "linear",
    "elements": [{"label": "Line 0", "points": [[1, 3], [2, 4]]}],
}  # fmt: skip
CHARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "line": (
        f"ax.plot([1, 2], [3, 4], label='a'); ax.plot([1, 2], [5, 9]); ax.set({AXES}, xticks=[1, 2], yticks=[3, 9])",
        {
            "type": "line", **NAMED, "x_scale": "linear", "y_scale": "linear",
            "x_ticks": [1, 2], "x_tick_labels": ["1", "2"], "y_ticks": [3, 9], "y_tick_labels": ["3", "9"],
            "elements": [{"label": "a", "points": [[1, 3], [2, 4]]}, {"label": "Line 1", "points": [[1, 5], [2, 9]]}],
        },
    ),
    "line over days": (
        "from datetime import date; x = [date(2026, 1, 1), date(2026, 1, 3)]; ax.plot(x, [3, 4]); ax.set_xticks(x)",
        {
            **LINE, "x_scale": "datetime", "x_ticks": ["2026-01-01T00:00:00+00:00", "2026-01-03T00:00:00+00:00"],
            "elements": [{"label": "Line 0", "points": [["2026-01-01", 3], ["2026-01-03", 4]]}],
        },
    ),
    "line over names": (
        "ax.plot(['a', 'b'], [3, 4])",
        {
            **LINE, "x_scale": "categorical", "x_ticks": [0, 1], "x_tick_labels": ["a", "b"],
            "elements": [{"label": "Line 0", "points": [["a", 3], ["b", 4]]}],
        },
    ),
    "scatter": (
        f"ax.scatter([1, 10], [3, 4], label='a'); ax.set({AXES}, xscale='log')",
        {
            "type": "scatter", **NAMED, "x_scale": "log", "y_scale": "linear",
            "elements": [{"label": "a", "points": [[1, 3], [10, 4]]}],
        },
    ),
    "bar": (
        f"ax.bar(['a', 'b'], [3, 4], label='cars'); ax.bar(['a', 'b'], [1, 2], bottom=[3, 4]); ax.set({AXES})",
        {
            "type": "bar", **NAMED,
            "elements": [
                {"label": "a", "group": "cars", "value": 3}, {"label": "b", "group": "cars", "value": 4},
                {"label": "a", "group": "Group 1", "value": 1}, {"label": "b", "group": "Group 1", "value": 2},
            ],
        },
    ),
    "lying bar": (
        f"ax.barh(['a', 'b'], [3, 4]); ax.set({AXES})",
        {
            "type": "bar", "title": "Runs",
            "x_label": "speed [m/s]", "x_unit": "m/s", "y_label": "time (s)", "y_unit": "s",
            "elements": [
                {"label": "a", "group": "Group 0", "value": 3}, {"label": "b", "group": "Group 0", "value": 4},
            ],
        },
    ),
    "pie": (
        "ax.pie([1, 3], labels=['a', 'b'], radius=2); ax.set(title='Runs')",
        {
            "type": "pie", "title": "Runs",
            "elements": [{"label": "a", "angle": 90, "radius": 2}, {"label": "b", "angle": 270, "radius": 2}],
        },
    ),
    "box and whisker": (
        f"ax.boxplot([[1, 2, 3, 4, 5, 100], [2, 4, 6, 8, 11]], patch_artist=True); ax.set({AXES})",
        {
            "type": "box_and_whisker", **NAMED,
            "elements": [
                {
                    "label": "1", "min": 1, "first_quartile": 2.25, "median": 3.5, "third_quartile": 4.75, "max": 5,
                    "outliers": [100],
                },
                {
                    "label": "2", "min": 2, "first_quartile": 4, "median": 6, "third_quartile": 8, "max": 11,
                    "outliers": [],
                },
            ],
        },
    ),
    "superchart": (
        "fig.clear(); a, b = fig.subplots(1, 2); a.plot([1, 2], [3, 4]); b.pie([1]); fig.suptitle('Both')",
        {
            "type": "superchart", "title": "Both",
            "elements": [
                LINE,
                {"type": "pie", "title": None, "elements": [{"label": "", "angle": 360, "radius": 1}]},
            ],
        },
    ),
    "unknown": ("ax.imshow([[1, 2]]); ax.set(title='Runs')", {"type": "unknown", "title": "Runs", "elements": []}),
}  # fmt: skip
"""What is drawn, and what the client is told of it."""


@pytest.mark.covers("I04")
@pytest.mark.parametrize("kind", CHARTS)
def test_a_plot_is_a_picture_and_a_chart(interpreter: Sandbox, kind: str) -> None:
    drawn, told = CHARTS[kind]
    execution = interpreter.run_code(f"import matplotlib.pyplot as plt\nfig, ax = plt.subplots()\n{drawn}\nplt.show()")
    assert execution.error is None
    (result,) = execution.results
    assert base64.b64decode(result.png or "").startswith(b"\x89PNG")
    chart: Any = result.chart
    assert chart is not None
    assert within(told, chart.to_dict()) == told
    assert (chart.type.value, chart.title, len(chart.elements)) == (told["type"], told["title"], len(told["elements"]))


def within(told: Any, whole: Any) -> Any:
    """Of the whole, what there is a word about: ticks are where matplotlib puts them, unless they were set."""
    if isinstance(told, dict):
        return {key: within(value, whole[key]) for key, value in told.items()}
    if isinstance(told, list) and len(told) == len(whole):
        return [within(*pair) for pair in zip(told, whole, strict=True)]
    return whole


@pytest.mark.covers("I04")
def test_images_are_shown_when_they_are_the_value_shown_and_saved(interpreter: Sandbox) -> None:
    interpreter.run_code("from PIL import Image; image = Image.new('RGB', (3, 2), 'red')")
    for code, is_main in (("image", True), ("image.show()", False), ("image.save('/tmp/red.png')", False)):
        (result,) = interpreter.run_code(code).results
        assert base64.b64decode(result.png or "").startswith(b"\x89PNG")
        assert result.is_main_result is is_main


@pytest.mark.covers("I04")
def test_every_form_that_a_value_has(interpreter: Sandbox) -> None:
    (result,) = interpreter.run_code(
        "class Many:\n"
        "    def _repr_mimebundle_(self, **_):\n"
        "        return {'text/plain': 't', 'text/html': 'h', 'text/markdown': 'm', 'image/svg+xml': '<svg/>',\n"
        "            'text/latex': 'l', 'application/javascript': 'j', 'image/jpeg': 'anBn',\n"
        "            'application/pdf': 'cGRm', 'application/x-other': 'o'}\n"
        "Many()"
    ).results
    assert (result.text, result.html, result.markdown, result.svg) == ("t", "h", "m", "<svg/>")
    assert (result.latex, result.javascript, result.jpeg, result.pdf) == ("l", "j", "anBn", "cGRm")
    assert result.extra == {"application/x-other": "o"}


@pytest.mark.covers("I02")
def test_contexts_are_apart_and_end_when_removed(interpreter: Sandbox) -> None:
    interpreter.run_code("where = 'default'")
    context = interpreter.create_code_context(cwd="/tmp", language="python")
    listed = interpreter.list_code_contexts()
    assert (listed[-1].id, listed[-1].language, listed[-1].cwd) == (context.id, "python", "/tmp")
    assert {"python", "javascript"} <= {each.language for each in listed}
    assert interpreter.run_code("import os; os.getcwd()", context=context).text == "/tmp"
    unknown = interpreter.run_code("where", context=context).error
    assert unknown is not None and unknown.name == "NameError"
    interpreter.run_code("mine = 1", context=context)
    interpreter.restart_code_context(context)
    assert interpreter.run_code("mine", context=context).error is not None
    interpreter.remove_code_context(context)
    assert context.id not in {each.id for each in interpreter.list_code_contexts()}
    for call in (
        lambda: interpreter.run_code("1", context=context),
        lambda: interpreter.remove_code_context(context),
        lambda: interpreter.restart_code_context(context.id),
    ):
        with pytest.raises(NotFoundException, match=f"Context {context.id} not found"):
            call()
    assert interpreter.run_code("where").text == "default"


@pytest.mark.covers("I02")
def test_what_cannot_be_made_says_why(interpreter: Sandbox) -> None:
    with pytest.raises(SandboxException, match=r"500.*this sandbox has python"):
        interpreter.create_code_context(language="cobol")
    with pytest.raises(SandboxException, match=r"500.*no folder"):
        interpreter.create_code_context(cwd="/nowhere")
    with pytest.raises(SandboxException, match=r"500.*cobol"):
        interpreter.run_code("1", language="cobol")


ENVS = {
    "python": "import os; print(os.environ.get('{}', 'none'), end='')",
    "js": "process.stdout.write(process.env['{}'] ?? 'none')",
    "r": "cat(Sys.getenv('{}', 'none'))",
    "java": 'System.getProperty("{}", "none")',
    "bash": 'printf "%s" "${{{}:-none}}"',
}


def said(sandbox: Sandbox, language: str, name: str, envs: dict[str, str] | None = None) -> str:
    execution = sandbox.run_code(ENVS[language].format(name), language=language, envs=envs)
    assert execution.error is None, execution.error
    heard = texts(execution.logs.stdout) or execution.text or ""
    return heard.removesuffix("\n") if language == "bash" else heard  # its kernel reads the shell by lines


@pytest.mark.covers("I05", "I08")
def test_the_environment_of_the_sandbox_and_of_one_call(on_runtime: dict[str, Any]) -> None:
    value = "a 'b' \"c\" $d é"
    options: dict[str, Any] = {"envs": {"GLOBAL": value}, "network": {"allow_public_traffic": False}, **on_runtime}
    with Sandbox.create(timeout=LIFE_S, **options) as sandbox:  # private traffic: the client shows its token everywhere
        for language in ENVS:
            assert said(sandbox, language, "GLOBAL") == value
            assert said(sandbox, language, "GLOBAL", {"GLOBAL": "other"}) == "other"
            assert said(sandbox, language, "GLOBAL") == value
            assert said(sandbox, language, "ONCE", {"ONCE": "1"}) == "1"
            assert said(sandbox, language, "ONCE") == "none"
        assert sandbox.list_code_contexts()


@pytest.mark.covers("I06")
@pytest.mark.parametrize(
    ("language", "keep", "hang", "kept"),
    [
        ("python", "kept = 5", "import time; time.sleep(300)", "kept"),
        ("python", "kept = 5", "while True: pass", "kept"),
        ("js", "var kept = 5", "while (true) {}", "kept"),
        ("js", "var kept = 5", "await new Promise((done) => setTimeout(done, 300000))", "kept"),
        ("r", "kept <- 5", "Sys.sleep(300)", "cat(kept)"),
        ("r", "kept <- 5", "while (TRUE) {}", "cat(kept)"),
        ("bash", "kept=5", "sleep 300", "echo $kept"),
        ("bash", "kept=5", "while :; do :; done", "echo $kept"),
        ("java", "int kept = 5;", "Thread.sleep(300000);", "kept"),
        (
            "java",
            "int kept = 5; var beats = new java.util.concurrent.atomic.AtomicLong();",
            "while (true) beats.incrementAndGet();",
            "long before = beats.get(); Thread.sleep(50); beats.get() == before ? kept : -1",
        ),
    ],
)
def test_code_beyond_its_timeout_is_interrupted_and_the_next_call_answers(
    interpreter: Sandbox, language: str, keep: str, hang: str, kept: str
) -> None:
    assert interpreter.run_code(keep, language=language).error is None
    with pytest.raises(TimeoutException):
        interpreter.run_code(hang, language=language, timeout=1)
    found = interpreter.run_code(kept, language=language, timeout=10)
    assert (found.error, found.text or texts(found.logs.stdout).strip()) == (None, "5")


@pytest.mark.anyio
@pytest.mark.covers("I01", "I03")
async def test_the_asynchronous_client(on_runtime: dict[str, Any], interpreter: Sandbox) -> None:
    sandbox = await AsyncSandbox.connect(interpreter.sandbox_id)
    heard: list[str] = []
    execution = await sandbox.run_code("print('hi'); 6 * 7", on_stdout=lambda message: heard.append(message.line))
    assert (execution.text, heard) == ("42", ["hi\n"])


def test_code_runs_for_nobody_without_the_sandbox_s_token(interpreter: Sandbox) -> None:
    call = """curl -s -w ' %{http_code}' -d '{"code": "1"}' http://127.0.0.1:49999/execute"""
    assert interpreter.commands.run(call).stdout == (
        "cannot execute: the access token (X-Access-Token) is missing or wrong 401"
    )
