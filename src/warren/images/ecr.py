"""A login for a registry of AWS out of an access key: ECR's GetAuthorizationToken, signed with Signature Version 4.

https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_GetAuthorizationToken.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast
from urllib.parse import urlsplit

import httpx

from warren.images.registries import Registries, is_loopback
from warren.model import limits
from warren.model.build import AwsKeys, RegistryLogin

ALGORITHM = "AWS4-HMAC-SHA256"
SERVICE = "ecr"
ACTION = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"
BODY = b"{}"
WORDS_MAX = 300
"""Characters of the service's words that go into an error."""


class LoginRefused(Exception):
    """Why there is no login, in words that follow a colon; never with a secret."""


async def ecr_login(keys: AwsKeys, now: datetime, settings: Registries) -> RegistryLogin:
    """Ask the region's endpoint, or the one of the settings, through their proxy if there is one.

    Raises LoginRefused.
    """
    url = settings.ecr_endpoint or _endpoint_of(keys.region)
    host = urlsplit(url).netloc
    headers = {
        "content-type": "application/x-amz-json-1.1",
        "host": host,
        "x-amz-date": f"{now:%Y%m%dT%H%M%SZ}",
        "x-amz-target": ACTION,
    }
    headers["authorization"] = authorization(keys, SERVICE, headers, BODY)
    way = None if is_loopback(urlsplit(url).hostname or "") else settings.proxy or None
    try:
        async with httpx.AsyncClient(trust_env=False, proxy=way, timeout=limits.IMAGE_LOGIN_DEADLINE_S) as client:
            request = client.build_request("POST", f"{url.rstrip('/')}/", headers=headers, content=BODY)
            answer = await client.send(request, stream=True)
            try:
                return _login(answer.status_code, await _bounded(answer))
            finally:
                await answer.aclose()
    except httpx.HTTPError as error:
        raise LoginRefused(f"{host} does not answer ({type(error).__name__})") from None


def authorization(keys: AwsKeys, service: str, headers: Mapping[str, str], body: bytes) -> str:
    """The header's value for a POST to `/`; all of `headers`, in lower case, `x-amz-date` among them, are signed."""
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name].strip()}\n" for name in sorted(headers))
    asked = f"POST\n/\n\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"
    at = headers["x-amz-date"]
    scope = f"{at[:8]}/{keys.region}/{service}/aws4_request"
    text = f"{ALGORITHM}\n{at}\n{scope}\n{hashlib.sha256(asked.encode()).hexdigest()}"
    key = f"AWS4{keys.secret_access_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    return f"{ALGORITHM} Credential={keys.access_key_id}/{scope}, SignedHeaders={names}, Signature={signature}"


def _endpoint_of(region: str) -> str:
    return f"https://api.ecr.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"


async def _bounded(answer: httpx.Response) -> bytes:
    content = b""
    async for piece in answer.aiter_bytes():
        content += piece
        if len(content) > limits.IMAGE_LOGIN_BYTES:
            raise LoginRefused(f"the answer has more than {limits.IMAGE_LOGIN_BYTES} bytes (IMAGE_LOGIN_BYTES)")
    return content


def _login(status: int, content: bytes) -> RegistryLogin:
    try:
        document: object = json.loads(content)
        said = cast("dict[str, Any]", document) if isinstance(document, dict) else {}
        if status != 200:
            kind = str(said.get("__type", f"status {status}")).rpartition("#")[2]
            words = str(said.get("message") or said.get("Message") or "")
            raise LoginRefused(f"AWS says {kind}{words and ': '}{words}"[:WORDS_MAX])
        token = base64.b64decode(said["authorizationData"][0]["authorizationToken"], validate=True).decode()
        name, colon, password = token.partition(":")
        if not colon:
            raise ValueError
        return RegistryLogin(name, password)
    except (ValueError, KeyError, IndexError, TypeError, RecursionError, binascii.Error):
        raise LoginRefused(f"AWS's answer (status {status}) holds no login") from None
