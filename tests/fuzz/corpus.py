"""Bytes that a guest may say. `corpus/<target>` holds what was worth keeping: good answers, and every old failure.

A failing input is written there as `found-<test>`: give it a name that says what it shows, and commit it.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz.budget import FUZZ_EXAMPLES, budget

FOLDER = Path(__file__).parent / "corpus"
EDITS_MAX = 6
_PIECES = st.binary(max_size=12) | st.sampled_from(
    [b"\0", b"\r\n", b"\n", b"\r\n\r\n", b"\xff", b"9" * 30, b"-1", b"[" * 400, b'"\\ud800"', b"{}", b"null", b": "]
)


def seeds(target: str) -> list[bytes]:
    found = [file.read_bytes() for file in sorted((FOLDER / target).iterdir())]
    assert found, f"no corpus for {target}"
    return found


def mutated(target: str) -> st.SearchStrategy[bytes]:
    """A seed with a few pieces put in, taken out or overwritten; and now and then bytes that come from nowhere."""
    edits = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 20), _PIECES), max_size=EDITS_MAX)
    return st.builds(_edited, st.sampled_from(seeds(target)), edits) | st.binary(max_size=200)


def _edited(seed: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    for where, gone, piece in edits:
        at = int(where * len(seed))
        seed = seed[:at] + piece + seed[at + gone :]
    return seed


def fuzzed(target: str, usual: int) -> Callable[[Callable[..., None]], Any]:
    """Calls the test with `data`: with all of the corpus, then with mutations of it."""

    def decorate(test: Callable[..., None]) -> Any:
        signature = inspect.signature(test)

        def kept(*values: Any, **named: Any) -> None:
            try:
                test(*values, **named)
            except BaseException:
                if FUZZ_EXAMPLES:
                    data: bytes = signature.bind(*values, **named).arguments["data"]
                    (FOLDER / target / f"found-{test.__name__}").write_bytes(data)
                raise

        kept.__name__, kept.__doc__, kept.__module__ = test.__name__, test.__doc__, test.__module__
        kept.__signature__ = signature  # type: ignore[attr-defined]  # pytest finds fixtures there
        checked = given(data=mutated(target))(kept)
        for seed in seeds(target):
            checked = example(data=seed)(checked)
        return budget(usual)(checked)

    return decorate
