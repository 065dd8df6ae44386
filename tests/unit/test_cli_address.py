import os
from pathlib import Path

import pytest

from warren.cli.address import find, is_loopback, own_urls, same_place
from warren.model.errors import Unauthenticated
from warren.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "local-key").write_text("e2b_local\n")
    return Settings(state_dir=tmp_path)


def test_without_variables_it_is_this_machine_s_own_server(settings: Settings) -> None:
    found = find({}, settings)
    assert (found.api_url, found.sandbox_url, found.is_local) == (
        "http://127.0.0.1:3000",
        "http://127.0.0.1:3002",
        True,
    )
    assert found.key() == "e2b_local"


def test_variables_win(settings: Settings) -> None:
    found = find({"E2B_API_URL": "https://a/", "E2B_SANDBOX_URL": "https://s", "E2B_API_KEY": "k"}, settings)
    assert (found.api_url, found.sandbox_url, found.key(), found.is_local) == ("https://a", "https://s", "k", False)


@pytest.mark.parametrize("url", ["http://elsewhere:3000", "http://127.0.0.1:9", "https://127.0.0.1:3000"])
def test_the_local_key_goes_nowhere_else(settings: Settings, url: str) -> None:
    with pytest.raises(Unauthenticated, match="set E2B_API_KEY"):
        find({"E2B_API_URL": url}, settings).key()


def test_localhost_is_this_machine(settings: Settings) -> None:
    assert find({"E2B_API_URL": "http://localhost:3000"}, settings).key() == "e2b_local"


def test_a_missing_and_an_unreadable_key_are_explained(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(Unauthenticated, match="start the server once"):
        find({}, Settings(state_dir=tmp_path / "none")).key()
    os.remove(tmp_path / "local-key")
    (tmp_path / "local-key").mkdir()
    with pytest.raises(Unauthenticated, match="cannot read"):
        find({}, settings).key()


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:3000"), ("::", "http://[::1]:3000"), ("10.0.0.5", "http://10.0.0.5:3000")],
)
def test_a_server_on_every_address_is_reached_through_loopback(host: str, url: str) -> None:
    assert own_urls(Settings(host=host))[0] == url


def test_places_are_compared_by_scheme_host_and_port() -> None:
    assert same_place("http://127.0.0.1:3000/", "http://127.0.0.1:3000")
    assert not same_place("http://127.0.0.1", "http://127.0.0.1:3000")
    assert is_loopback("http://[::1]:5") and is_loopback("http://localhost") and not is_loopback("http://10.0.0.1")
