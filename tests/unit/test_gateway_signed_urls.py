from base64 import b64encode
from hashlib import sha256
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.contracts.routing import Route
from warren.gateway.signed_urls import find_signer, has_expired, is_signed

ROUTES = [Route(f"sandbox{n}", "127.0.0.1", f"token{n}" if n else None, "control") for n in range(4)]


def signature(path: str, operation: str, username: str, token: str, expiration: int | None = None) -> str:
    text = f"{path}:{operation}:{username}:{token}" + ("" if expiration is None else f":{expiration}")
    return "v1_" + b64encode(sha256(text.encode()).digest()).decode().rstrip("=")


@given(st.text(min_size=1, max_size=30).filter(lambda t: t.isprintable()), st.sampled_from([quote, quote_plus]))
def test_the_signature_finds_its_sandbox(path: str, quoted: object) -> None:
    escape = quote if quoted is quote else quote_plus
    sign = signature(path, "read", "", "token2", 99)
    target = f"/files?path={escape(path)}&signature={escape(sign)}&signature_expiration=99"
    found = find_signer("GET", target, ROUTES)
    assert found is not None
    assert found.sandbox_id == "sandbox2"


def test_an_upload_is_signed_for_writing() -> None:
    target = f"/files?path=a&username=root&signature={quote(signature('a', 'write', 'root', 'token1'), safe='')}"
    assert find_signer("POST", target, ROUTES) == ROUTES[1]
    assert find_signer("GET", target, ROUTES) is None
    assert find_signer("DELETE", target, ROUTES) is None


@pytest.mark.parametrize(
    "target",
    [
        "/files?path=a&signature=",
        "/files?path=a&signature=v1_short",
        "/files?path=a&signature=v2_" + "A" * 43,
        "/files?signature=v1_" + "A" * 43,
        "/files?path=" + "a" * 5000 + "&signature=v1_" + "A" * 43,
        "/files?path=%ff%fe&signature=v1_" + "A" * 43,
    ],
)
def test_anything_else_finds_none(target: str) -> None:
    assert find_signer("GET", target, ROUTES) is None


def test_a_sandbox_without_a_token_signs_nothing() -> None:
    target = f"/files?path=a&signature={quote(signature('a', 'read', '', 'None'), safe='')}"
    assert find_signer("GET", target, ROUTES) is None


@pytest.mark.parametrize(
    ("target", "signed"),
    [
        ("/files?path=a&signature=x", True),
        ("/files?path=a", False),
        ("/files", False),
        ("/files/compose?signature=x", False),
        ("/?signature=x", False),
    ],
)
def test_only_files_are_signed(target: str, signed: bool) -> None:
    assert is_signed(target) is signed


@pytest.mark.parametrize(
    ("given", "expired"),
    [("", False), ("100", False), ("101", False), ("99", True), ("soon", True), ("-5", True), ("9" * 5000, True)],
)
def test_a_signature_holds_until_its_second_is_over(given: str, expired: bool) -> None:
    target = "/files?path=a&signature=x" + (given and f"&signature_expiration={given}")
    assert has_expired(target, 100.9) is expired
