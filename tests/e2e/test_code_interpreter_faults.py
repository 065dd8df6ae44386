"""What ends under the code interpreter: kernels, its server, the sandbox. Callers get the truth, and it heals."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from e2b import TimeoutException
from e2b_code_interpreter import Sandbox

from tests.e2e.interpreter import TEST_DEADLINE_S, interpreter

__all__ = ["interpreter"]
pytestmark = pytest.mark.timeout(TEST_DEADLINE_S)

HEALTHY = (
    "for n in $(seq 100); do curl -sf -m 1 http://127.0.0.1:49999/health > /dev/null && break; sleep 0.3; done; "
    "curl -sf http://127.0.0.1:49999/health"
)


@pytest.mark.covers("I09")
def test_a_kernel_that_is_killed_while_nobody_uses_it_is_started_anew(interpreter: Sandbox) -> None:
    interpreter.run_code("lost = 1")
    interpreter.commands.run("pkill -9 -f 'kernels/pytho[n]3/'", user="root")
    answer = interpreter.run_code("2 + 2")
    if answer.error is not None:  # it ran into the kernel's end
        assert answer.error.name == "UnexpectedEndOfExecution"
        answer = interpreter.run_code("2 + 2")
    assert answer.text == "4"
    gone = interpreter.run_code("lost").error
    assert gone is not None and gone.name == "NameError"


@pytest.mark.covers("I07", "I09")
@pytest.mark.parametrize(
    ("code", "language"), [("import os; os.kill(os.getpid(), 9)", "python"), ("process.exit(1)", "javascript")]
)
def test_a_kernel_that_ends_at_work_is_said(interpreter: Sandbox, code: str, language: str) -> None:
    execution = interpreter.run_code(code, language=language)
    assert execution.error is not None
    assert execution.error.name == "UnexpectedEndOfExecution"
    assert interpreter.run_code("1 + 1", language=language).text == "2"


@pytest.mark.covers("I09")
@pytest.mark.parametrize("signal", ["-9", "-15"])
def test_a_server_that_is_killed_is_started_anew_with_its_kernels(interpreter: Sandbox, signal: str) -> None:
    ended = (
        f"p=$(pgrep -f 'm code_[i]nterpreter') && kill {signal} $p && while kill -0 $p 2> /dev/null; do sleep 0.1; done"
    )
    interpreter.commands.run(ended, user="root", timeout=30)
    assert interpreter.commands.run(HEALTHY, timeout=60).stdout == '"OK"'
    assert interpreter.run_code("1 + 1").text == "2"
    kernels = interpreter.commands.run("pgrep -fc '^/usr/bin/python3.*kernels/pytho[n]3/'").stdout
    assert int(kernels) == 1  # none is left of the server before


@pytest.mark.covers("I07")
def test_a_sandbox_that_is_killed_while_code_runs(on_runtime: dict[str, Any]) -> None:
    sandbox = Sandbox.create(timeout=300, **on_runtime)
    errors: list[BaseException] = []
    started = threading.Event()

    def run() -> None:
        try:
            sandbox.run_code("print('up'); import time; time.sleep(120)", on_stdout=lambda _: started.set())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(60)
    sandbox.kill()
    thread.join(30)
    assert isinstance(errors[0], TimeoutException)
    assert "sandbox was killed while the request was in progress" in str(errors[0]).lower()


@pytest.mark.covers("I06")
def test_one_context_takes_calls_in_turn_and_others_do_not_wait(interpreter: Sandbox) -> None:
    other = interpreter.create_code_context()
    order: list[str] = []

    def run(code: str, name: str, **options: Any) -> Callable[[], None]:
        return lambda: order.append(f"{name} {interpreter.run_code(code, **options).text}")

    slow = threading.Thread(target=run("import time; time.sleep(4); 'slow'", "first"))
    slow.start()
    interpreter.run_code("1", context=other)
    order.append("other")
    next_one = threading.Thread(target=run("'next'", "second"))
    next_one.start()
    for thread in (slow, next_one):
        thread.join(60)
    assert order[0] == "other"
    assert sorted(order[1:]) == ["first slow", "second next"]
    interpreter.remove_code_context(other)


def test_bad_requests_say_what_is_wrong(interpreter: Sandbox) -> None:
    asked = (
        ("[]", "not a JSON object"), ("{", "not JSON"), ("{}", "has no code"), ('{"code": 1}', "not a string"),
        ('{"code": "1", "context_id": "x", "language": "python"}', "both context_id and language"),
        ('{"code": "1", "env_vars": {"A=": "x"}}', "environment variable"),
    )  # fmt: skip
    for body, words in asked:
        call = f"curl -s -w ' %{{http_code}}' -d '{body}' http://127.0.0.1:49999/execute"
        answer = interpreter.commands.run(call).stdout
        assert words in answer and answer.endswith(" 400"), answer
