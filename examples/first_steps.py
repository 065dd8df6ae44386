"""The shortest program: one sandbox, one file, one command.

eval "$(.venv/bin/warren env)" && .venv/bin/python examples/first_steps.py
"""

from e2b import Sandbox

with Sandbox.create(timeout=60) as sandbox:
    sandbox.files.write("numbers.txt", "3\n1\n2\n")
    done = sandbox.commands.run("sort numbers.txt | paste -sd,")
    print(done.stdout, end="")
