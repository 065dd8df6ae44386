"""A service on loopback that exchanges AWS keys for a login, and looks at every signature as AWS does."""

import base64
import contextlib
import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

KEY_ID, SECRET, REGION = "AKIDOFTHETESTS000000", "secret/of+the=tests", "eu-central-1"
_FORM = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<id>\w+)/(?P<day>\d{8})/(?P<region>[\w-]+)/ecr/aws4_request, "
    r"SignedHeaders=(?P<names>[\w;-]+), Signature=(?P<signature>[0-9a-f]{64})"
)


@dataclass
class FakeEcr:
    url: str
    login: str
    """As `user:password`."""
    asked: list[str] = field(default_factory=list[str])
    """What was said to each request."""


@contextlib.contextmanager
def fake_ecr(login: str) -> Iterator[FakeEcr]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, said = _answer(self, body, login)
            ecr.asked.append(said.get("__type", "login"))
            content = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        ecr = FakeEcr(f"http://127.0.0.1:{server.server_address[1]}", login)
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield ecr
        finally:
            server.shutdown()


def _answer(request: BaseHTTPRequestHandler, body: bytes, login: str) -> tuple[int, dict[str, object]]:
    found = _FORM.fullmatch(request.headers.get("Authorization", ""))
    if found is None or found["id"] != KEY_ID:
        return 400, {"__type": "com.amazon#UnrecognizedClientException", "message": "The security token is invalid."}
    names = found["names"].split(";")
    if not {"host", "x-amz-date", "x-amz-target"} <= set(names) or names != sorted(names):
        return 400, {"__type": "com.amazon#IncompleteSignature"}
    signed = "".join(f"{name}:{request.headers[name]}\n" for name in names)
    parts = [request.command, request.path, "", signed, found["names"], hashlib.sha256(body).hexdigest()]
    date = request.headers["x-amz-date"]
    scope = [found["day"], found["region"], "ecr", "aws4_request"]
    key = f"AWS4{SECRET}".encode()
    for part in scope:
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", date, "/".join(scope), digest])
    good = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    if (found["region"], found["day"], found["signature"]) != (REGION, date[:8], good):
        return 400, {"__type": "com.amazon#InvalidSignatureException", "message": "The signature does not match."}
    if request.headers["x-amz-target"] != "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken":
        return 400, {"__type": "com.amazon#UnknownOperationException"}
    return 200, {"authorizationData": [{"authorizationToken": base64.b64encode(login.encode()).decode()}]}
