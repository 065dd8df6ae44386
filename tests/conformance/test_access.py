"""Contract 3.6, 6.2.6: the access token, and signatures that stand in for it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import httpx
import pytest
from e2b import AuthenticationException, Sandbox
from e2b.connection_config import ConnectionConfig
from e2b.sandbox.signature import get_signature

from .conftest import TOKEN, options
from .wire import Wire, envelope, shell

if TYPE_CHECKING:
    from pathlib import Path

    from .daemon import Daemon

WRONG = {"X-Access-Token": "wrong"}


@pytest.fixture
def secret(folder: Path) -> Path:
    path = folder / "se cret+ü&"
    path.write_text("content")
    return path


def fetch(guest: Daemon, path: object, *, headers: dict[str, str] | None = None, **query: object) -> httpx.Response:
    return httpx.get(f"{guest.url}/files", params={"path": str(path), **query}, headers=headers)


def refused(response: httpx.Response, message: str) -> bool:
    return (response.status_code, response.json()) == (401, {"code": 401, "message": message})


@pytest.mark.parametrize("headers", [{}, WRONG, {"X-Access-Token": TOKEN + "x"}, {"X-Access-Token": TOKEN[:-1]}])
@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("POST", "/process.Process/List"),
        ("POST", "/process.Process/Start"),
        ("POST", "/filesystem.Filesystem/Stat"),
        ("GET", "/envs"),
        ("GET", "/metrics"),
        ("POST", "/files/compose"),
        ("GET", "/nothing"),
        ("POST", "/health"),
        ("PUT", "/files"),
        ("GET", "/files/"),
        ("GET", "//files"),
    ],
)
def test_everything_needs_the_token(guest: Daemon, verb: str, path: str, headers: dict[str, str]) -> None:
    response = httpx.request(verb, guest.url + path, headers=headers, json={} if verb == "POST" else None)
    assert response.status_code == 401
    assert response.json()["code"] == 401
    assert isinstance(response.json()["message"], str)


def test_streams_need_the_token(guest: Daemon) -> None:
    headers = {"Content-Type": "application/connect+json"}
    body = envelope(shell("true"))
    response = httpx.post(f"{guest.url}/process.Process/Start", content=body, headers=headers)
    assert (response.status_code, response.json()["code"]) == (401, 401)


def test_health_is_free(guest: Daemon) -> None:
    assert httpx.get(f"{guest.url}/health").status_code == 204
    assert httpx.get(f"{guest.url}/health", headers=WRONG).status_code == 204


def test_client_with_a_wrong_token_is_told_so(guest: Daemon) -> None:
    config = ConnectionConfig(sandbox_url=guest.url, api_key="unused", extra_sandbox_headers=WRONG)
    stranger = Sandbox(**{**options(guest), "connection_config": config})
    with pytest.raises(AuthenticationException):
        stranger.commands.run("true")
    with pytest.raises(AuthenticationException):
        stranger.files.read("/etc/hostname")
    with pytest.raises(AuthenticationException):
        stranger.files.list("/")
    with pytest.raises(AuthenticationException):
        stranger.files.write("~/stolen", "x")


def test_before_init_all_is_open(fresh_wire: Wire) -> None:
    assert fresh_wire.ok("process.Process/List", {}) == {}
    assert fresh_wire.files("GET", params={"path": "/proc/version"}).status_code == 200


def test_signed_urls_of_the_client_work_without_any_header(sandbox: Sandbox, guest: Daemon, secret: Path) -> None:
    assert httpx.get(sandbox.download_url(str(secret))).text == "content"
    assert httpx.get(sandbox.download_url(str(secret), use_signature_expiration=60)).text == "content"
    assert httpx.get(sandbox.download_url(str(secret), user="root")).text == "content"
    url = sandbox.upload_url(f"{secret}.up", use_signature_expiration=60)
    assert httpx.post(url, files={"file": ("x", b"up")}).status_code == 200
    assert secret.with_name(secret.name + ".up").read_text() == "up"


def test_signed_head_works_like_get(sandbox: Sandbox, secret: Path) -> None:
    assert httpx.head(sandbox.download_url(str(secret))).status_code == 200


def test_plus_and_percent_twenty_are_both_spaces(guest: Daemon, folder: Path) -> None:
    (folder / "a b").write_text("spaced")
    signature = get_signature(f"{folder}/a b", "read", None, TOKEN)["signature"].replace("+", "%2B")
    for space in ("+", "%20"):
        response = httpx.get(f"{guest.url}/files?path={folder}/a{space}b&signature={signature}")
        assert response.text == "spaced"


def test_signature_covers_path_operation_user_and_expiry(guest: Daemon, secret: Path) -> None:
    signed = get_signature(str(secret), "read", "user", TOKEN, 60)
    good = {"signature": signed["signature"], "signature_expiration": signed["expiration"], "username": "user"}
    assert fetch(guest, secret, **good).text == "content"
    assert refused(fetch(guest, f"{secret}x", **good), "invalid signature")
    assert refused(fetch(guest, secret, **{**good, "username": "root"}), "invalid signature")
    later = {**good, "signature_expiration": int(good["signature_expiration"] or 0) + 1}
    assert refused(fetch(guest, secret, **later), "invalid signature")
    del good["signature_expiration"]
    assert refused(fetch(guest, secret, **good), "invalid signature")


def test_read_signature_does_not_write(guest: Daemon, secret: Path) -> None:
    signature = get_signature(str(secret), "read", None, TOKEN)["signature"]
    params = {"path": str(secret), "signature": signature}
    assert refused(httpx.post(f"{guest.url}/files", params=params, files={"file": b"x"}), "invalid signature")
    assert secret.read_text() == "content"


def test_missing_signature_says_so(guest: Daemon, secret: Path) -> None:
    assert refused(fetch(guest, secret), "missing signature query parameter")
    response = httpx.post(f"{guest.url}/files", params={"path": str(secret)}, files={"file": b"x"})
    assert refused(response, "missing signature query parameter")


def test_expired_signature_says_so(guest: Daemon, secret: Path) -> None:
    signed = get_signature(str(secret), "read", None, TOKEN, -10)
    response = fetch(guest, secret, signature=signed["signature"], signature_expiration=signed["expiration"])
    assert refused(response, "signature is already expired")


@pytest.mark.parametrize("signature", ["", "v1_", "v2_abc", "v1_" + "A" * 43, "v1_" + "=" * 44, "\0", "x" * 5000])
def test_nonsense_is_an_invalid_signature(guest: Daemon, secret: Path, signature: str) -> None:
    response = fetch(guest, secret, signature=signature)
    assert response.status_code == 401
    assert response.json()["code"] == 401


@pytest.mark.parametrize("expiration", ["x", "", "1e99", "99999999999999999999999"])
def test_nonsense_expirations_are_refused(guest: Daemon, secret: Path, expiration: str) -> None:
    signature = get_signature(str(secret), "read", None, "other token")["signature"]
    assert fetch(guest, secret, signature=signature, signature_expiration=expiration).status_code == 401


def test_header_token_serves_files_without_a_signature(guest: Daemon, secret: Path) -> None:
    assert fetch(guest, secret, headers={"X-Access-Token": TOKEN}).text == "content"


def test_wrong_header_token_is_refused_with_and_without_a_signature(guest: Daemon, secret: Path) -> None:
    assert fetch(guest, secret, headers=WRONG).status_code == 401
    signature = get_signature(str(secret), "read", None, TOKEN)["signature"]
    assert fetch(guest, secret, headers=WRONG, signature=signature).status_code == 401


def test_a_changed_token_ends_old_signatures(fresh: Daemon) -> None:
    path = fresh.folder / "f"
    path.write_text("x")
    fresh.init(accessToken="first")
    signature = get_signature(str(path), "read", None, "first", 60)
    query = {"signature": signature["signature"], "signature_expiration": signature["expiration"]}
    assert fetch(fresh, path, **query).status_code == 200
    fresh.init(accessToken="second", timestamp=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    assert fetch(fresh, path, **query).status_code == 401
