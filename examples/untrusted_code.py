"""Run code that nobody has read: no Internet, a deadline, and an answer whatever it does.

eval "$(.venv/bin/warren env)" && .venv/bin/python examples/untrusted_code.py
"""

from e2b import CommandExitException, Sandbox, TimeoutException

SNIPPETS = {
    "honest": "print(sum(range(1_000_000)))",
    "broken": "print(1 / 0)",
    "endless": "while True: pass",
    "curious": "import urllib.request; print(urllib.request.urlopen('http://192.0.2.1', timeout=3).status)",
}
SECONDS = 5


def run(sandbox: Sandbox, code: str) -> str:
    sandbox.files.write("snippet.py", code)
    try:
        return sandbox.commands.run("python3 snippet.py", timeout=SECONDS).stdout.strip()
    except CommandExitException as failure:
        return f"exit code {failure.exit_code}: {failure.stderr.strip().splitlines()[-1]}"
    except TimeoutException:
        return f"stopped after {SECONDS} s"


with Sandbox.create(timeout=120, allow_internet_access=False) as sandbox:
    for name, code in SNIPPETS.items():
        print(f"{name:8} {run(sandbox, code)}")
