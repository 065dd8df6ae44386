"""`https://<port>-<id>.<domain>` without DNS: every such name is this machine, as wildcard DNS would have it."""

import ssl
from collections.abc import Mapping

import httpx


class PublicUrl:
    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls

    def get(self, host: str, path: str = "/", headers: Mapping[str, str] | None = None) -> httpx.Response:
        """`host` as `get_host()` gives it. The certificate is checked against that name."""
        return self.request("GET", host, path, headers)

    def request(
        self, method: str, host: str, path: str = "/", headers: Mapping[str, str] | None = None, content: bytes = b""
    ) -> httpx.Response:
        name, _, port = host.partition(":")
        with httpx.Client(verify=self._tls, timeout=30, trust_env=False) as client:
            return client.request(
                method,
                f"https://127.0.0.1:{port or 443}{path}",
                headers={**(headers or {}), "Host": host},
                content=content or None,
                extensions={"sni_hostname": name},
            )
