"""AWS keys become a login: signed as AWS publishes it, and every answer that is none is told without a secret."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from tests.fake_ecr import KEY_ID, REGION, SECRET, fake_ecr
from warren.images.ecr import LoginRefused, authorization, ecr_login
from warren.images.registries import Registries, parse_registries
from warren.model.build import AwsKeys, RegistryLogin
from warren.model.errors import BadRequest

pytestmark = pytest.mark.anyio
KEYS = AwsKeys(KEY_ID, SECRET, REGION)
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def at(url: str) -> Registries:
    return parse_registries((), (), (), ecr_endpoint=url)


def test_the_signature_is_the_one_of_the_published_example() -> None:
    """`post-vanilla` of AWS's suite for Signature Version 4."""
    keys = AwsKeys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "us-east-1")
    headers = {"host": "example.amazonaws.com", "x-amz-date": "20150830T123600Z"}
    assert authorization(keys, "service", headers, b"") == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        "SignedHeaders=host;x-amz-date, "
        "Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
    )


async def test_keys_become_a_login() -> None:
    with fake_ecr("AWS:pass:word") as ecr:
        assert await ecr_login(KEYS, NOW, at(ecr.url)) == RegistryLogin("AWS", "pass:word")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (AwsKeys(KEY_ID, "wrong-secret", REGION), "InvalidSignatureException: The signature does not match."),
        (AwsKeys("AKIDUNKNOWN000000000", SECRET, REGION), "UnrecognizedClientException"),
        (AwsKeys(KEY_ID, SECRET, "eu-west-1"), "InvalidSignatureException"),
    ],
)
async def test_what_aws_refuses_is_told_by_its_name_without_a_secret(keys: AwsKeys, words: str) -> None:
    with fake_ecr("AWS:password") as ecr:
        with pytest.raises(LoginRefused, match=words) as caught:
            await ecr_login(keys, NOW, at(ecr.url))
        assert keys.secret_access_key not in f"{caught.value}{keys}"


@asynccontextmanager
async def answering(content: bytes) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + content)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b'{"authorizationData": []}', b'{"authorizationData": [{"authorizationToken": 5}]}',
     b'{"authorizationData": [{"authorizationToken": "%%"}]}',
     b'{"authorizationData": [{"authorizationToken": "QQ=="}]}',
     b'{"authorizationData": [{"authorizationToken": "/////w=="}]}', b"[" * 50_000, b" " * 70_000],
)  # fmt: skip
async def test_an_answer_that_is_none(content: bytes) -> None:
    async with answering(content) as url:
        with pytest.raises(LoginRefused, match=r"holds no login|IMAGE_LOGIN_BYTES"):
            await ecr_login(KEYS, NOW, at(url))


async def test_nobody_there() -> None:
    async with answering(b"") as url:
        pass
    with pytest.raises(LoginRefused, match="does not answer"):
        await ecr_login(KEYS, NOW, at(url))


@pytest.mark.parametrize("url", ["ftp://host", "https://user:secret@host", "https://host/path", "host", "https://"])
def test_an_endpoint_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(BadRequest, match="ECR endpoint"):
        parse_registries((), (), (), ecr_endpoint=url)
