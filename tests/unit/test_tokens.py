"""Tokens are stable over a restart, differ by purpose and sandbox, and rest on a private seed."""

import stat
from pathlib import Path

from warren.control.tokens import Tokens, load_seed


def test_the_seed_is_made_once_and_private(tmp_path: Path) -> None:
    file = tmp_path / "seed"
    first = load_seed(file)
    assert load_seed(file) == first
    assert len(first) == 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_tokens_differ_by_purpose_by_sandbox_and_by_seed() -> None:
    one, other = Tokens(b"1" * 32), Tokens(b"2" * 32)
    made = {
        derive(sandbox)
        for tokens in (one, other)
        for derive in (tokens.access, tokens.traffic, tokens.control, tokens.machine_id)
        for sandbox in ("ia", "ib")
    }
    assert len(made) == 16
    assert one.access("ia") == Tokens(b"1" * 32).access("ia")
