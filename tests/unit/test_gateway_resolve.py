import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.gateway.resolve import ApiTarget, Misdirected, SandboxTarget, SharedTarget, resolve

DOMAIN = "e2b.localhost"
IDS = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=40)
PORTS = st.integers(1, 65_535)
SHARED = ["localhost", "localhost:3002", "127.0.0.1:3002", "[::1]:3002", "10.1.2.3", "sandbox.e2b.localhost:3443"]


def both(sandbox_id: str, port: str) -> dict[str, str]:
    return {"E2b-Sandbox-Id": sandbox_id, "E2b-Sandbox-Port": port}


@given(IDS, PORTS, st.sampled_from(["", "-0a1b2c3d"]), st.sampled_from(["", ":3443", "."]))
def test_a_host_name_names_port_and_sandbox(sandbox_id: str, port: int, client_id: str, end: str) -> None:
    host = f"{port}-{sandbox_id}{client_id}.{DOMAIN}{end}"
    assert resolve(host, {}, DOMAIN) == SandboxTarget(sandbox_id, port)
    assert resolve(host.upper(), {}, DOMAIN) == SandboxTarget(sandbox_id, port)


@given(IDS, PORTS, st.sampled_from(SHARED), st.sampled_from(["", "-0a1b2c3d"]))
def test_headers_name_them_on_a_shared_host(sandbox_id: str, port: int, host: str, client_id: str) -> None:
    assert resolve(host, both(sandbox_id + client_id, str(port)), DOMAIN) == SandboxTarget(sandbox_id, port)


def test_a_host_name_wins_over_headers() -> None:
    assert resolve("8000-abc.e2b.localhost", both("other", "1"), DOMAIN) == SandboxTarget("abc", 8000)


@pytest.mark.parametrize("host", ["api.e2b.localhost", "API.e2b.localhost:3443", "api.e2b.localhost."])
def test_the_api_has_a_name_and_headers_do_not_change_it(host: str) -> None:
    assert resolve(host, both("abc", "49983"), DOMAIN) == ApiTarget()


@pytest.mark.parametrize("host", SHARED)
def test_a_shared_host_without_headers_is_for_signed_urls(host: str) -> None:
    assert resolve(host, {}, DOMAIN) == SharedTarget()


@pytest.mark.parametrize(
    "headers", [{"E2b-Sandbox-Id": "abc"}, {"E2b-Sandbox-Port": "80"}], ids=["only the id", "only the port"]
)
def test_one_header_alone_is_refused(headers: dict[str, str]) -> None:
    answer = resolve("localhost", headers, DOMAIN)
    assert isinstance(answer, Misdirected)
    assert answer.message.startswith("Missing E2b-Sandbox-")


@pytest.mark.parametrize("port", ["", "0", "65536", "http", "-1", "8 0", "٨٠", "080000", "99999999999999999999", "+80"])
def test_a_port_is_a_number_in_range(port: str) -> None:
    assert resolve("localhost", both("abc", port), DOMAIN) == Misdirected("Invalid sandbox port")


@pytest.mark.parametrize("sandbox_id", ["", "ABC", "a.b", "../x", "a/b", "a%62", "ä", "-x", "a b", "x" * 64])
def test_an_id_is_small_letters_and_digits(sandbox_id: str) -> None:
    assert resolve("localhost", both(sandbox_id, "80"), DOMAIN) == Misdirected("Invalid sandbox ID")


@pytest.mark.parametrize("host", ["", "abc", "evil.test", "80-abc", "a b.test", "80-abc.test/x", "80-abc.test:x", "@"])
def test_other_hosts_are_refused(host: str) -> None:
    assert resolve(host, both("abc", "80"), DOMAIN) == Misdirected("Invalid host")


@given(st.text(max_size=60), st.dictionaries(st.sampled_from(["E2b-Sandbox-Id", "E2b-Sandbox-Port"]), st.text()))
def test_whatever_comes_gives_a_target_that_is_in_range(host: str, headers: dict[str, str]) -> None:
    target = resolve(host, headers, DOMAIN)
    if isinstance(target, SandboxTarget):
        assert 1 <= target.port <= 65_535
        assert set(target.sandbox_id) <= set(string.ascii_lowercase + string.digits)
