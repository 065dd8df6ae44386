"""External commands, each with a deadline, their own words in the error."""

import subprocess
from collections.abc import Callable, Mapping, Sequence

from warren.model.errors import EngineFailed, NoSpace

ERROR_CHARACTERS = 600
"""Characters of a command's words that go into an error: its first lines say what is wrong."""
MINIMAL_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


def run(
    purpose: str,
    argv: Sequence[str],
    deadline_s: float,
    stdin: str = "",
    environment: Mapping[str, str] = MINIMAL_ENVIRONMENT,
    *,
    is_full: Callable[[str], bool] = lambda _: False,
) -> str:
    """Standard output of a command. Raises EngineFailed("cannot <purpose>: …").

    NoSpace instead where `is_full` says so of all that it said; of that, an error has the beginning alone.
    """
    try:
        done = subprocess.run(  # argv is built here, never a shell
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=deadline_s,
            env={**MINIMAL_ENVIRONMENT, **environment},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise EngineFailed(f"cannot {purpose}: {argv[0]} did not finish within {deadline_s:g} s") from None
    except OSError as error:
        raise EngineFailed(f"cannot {purpose}: {argv[0]}: {error.strerror}; run `warren doctor`") from None
    if done.returncode != 0 and is_full(done.stderr or done.stdout):
        raise NoSpace(f"cannot {purpose}: the disk is full; free some space")
    if done.returncode != 0:
        raise EngineFailed(f"cannot {purpose}: {words(done.stderr or done.stdout) or f'exit {done.returncode}'}")
    return done.stdout


def words(text: str) -> str:
    """The beginning of a command's output, on one line."""
    return " / ".join(line.strip() for line in text.splitlines() if line.strip())[:ERROR_CHARACTERS]
