"""URLs that carry their own permission: for programs that have neither the client nor the token."""

import time
from collections.abc import Callable

import httpx
import pytest
from e2b import Sandbox

from tests.e2e.waiting import until


def post(url: str, content: bytes, name: str = "any") -> httpx.Response:
    return httpx.post(url, files={"file": (name, content)}, timeout=30)


@pytest.mark.covers("F12")
def test_a_file_is_downloaded_by_its_url_alone(box: Sandbox) -> None:
    box.files.write("/tmp/with space & more.txt", "signed")
    answer = httpx.get(box.download_url("/tmp/with space & more.txt"), timeout=30)
    assert (answer.status_code, answer.text) == (200, "signed")
    assert "with space" in answer.headers["content-disposition"]


@pytest.mark.covers("F12")
def test_a_file_is_uploaded_by_its_url_alone(box: Sandbox) -> None:
    answer = post(box.upload_url("/tmp/signed-upload"), b"came by URL")
    assert answer.status_code == 200
    assert answer.json() == [{"name": "signed-upload", "path": "/tmp/signed-upload", "type": "file"}]
    assert box.files.read("/tmp/signed-upload") == "came by URL"


@pytest.mark.covers("F12")
def test_a_url_may_name_the_user(box: Sandbox) -> None:
    assert post(box.upload_url("by-url", user="root"), b"x").status_code == 200
    assert box.files.get_info("/root/by-url").owner == "root"
    assert httpx.get(box.download_url("by-url", user="root"), timeout=30).text == "x"


@pytest.mark.covers("F12")
def test_a_url_is_good_until_it_expires(box: Sandbox) -> None:
    box.files.write("/tmp/soon-closed", "x")
    url = box.download_url("/tmp/soon-closed", use_signature_expiration=2)
    assert httpx.get(url, timeout=30).status_code == 200
    until(lambda: httpx.get(url, timeout=30).status_code == 401, 20, "the URL has expired")
    assert httpx.get(url, timeout=30).json() == {"code": 401, "message": "signature is already expired"}
    upload = box.upload_url("/tmp/soon-closed", use_signature_expiration=1)
    until(lambda: post(upload, b"y").status_code == 401, 20, "the URL has expired")


@pytest.mark.covers("F12")
def test_a_changed_url_is_worthless(box: Sandbox) -> None:
    box.files.write("/tmp/allowed", "x")
    url = box.download_url("/tmp/allowed", use_signature_expiration=60)
    for changed in (
        url.replace("allowed", "../etc/shadow"),
        url.replace("path=", "username=root&path="),
        url.replace("signature_expiration=", f"signature_expiration={int(time.time()) + 9999}&x="),
        url.replace("signature=v1_", "signature=v1_x"),
    ):
        answer = httpx.get(changed, timeout=30)
        assert answer.status_code == 401
        assert answer.json() == {"code": 401, "message": "invalid signature"}
    assert post(url, b"a read URL is not a write URL").status_code == 401


@pytest.mark.covers("F12")
def test_a_url_dies_with_its_sandbox(create: Callable[..., Sandbox]) -> None:
    sandbox = create()
    sandbox.files.write("/tmp/x", "x")
    url = sandbox.download_url("/tmp/x")
    assert httpx.get(url, timeout=30).status_code == 200
    sandbox.kill()
    assert httpx.get(url, timeout=30).status_code == 401


@pytest.mark.covers("F12")
def test_parts_of_a_file_are_served(box: Sandbox) -> None:
    box.files.write("/tmp/ranges", "0123456789")
    url = box.download_url("/tmp/ranges")
    part = httpx.get(url, headers={"Range": "bytes=2-4"}, timeout=30)
    assert (part.status_code, part.text, part.headers["content-range"]) == (206, "234", "bytes 2-4/10")
    tag = httpx.head(url, timeout=30).headers["etag"]
    assert httpx.get(url, headers={"If-None-Match": tag}, timeout=30).status_code == 304
