"""TLS with the server's own authority."""

import asyncio
import ssl

import httpx
import pytest
from aiohttp import web

from tests.integration.gateway_rig import DOMAIN, GUEST_PORT, read_head, running_gateway, to
from warren.gateway.certificates import TlsFiles, ensure_certificates

pytestmark = pytest.mark.anyio


PORT = 8000


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    return ensure_certificates(tmp_path_factory.mktemp("tls"), DOMAIN)


async def about(request: web.Request) -> web.Response:
    return web.json_response({"host": request.host, "proto": request.headers["X-Forwarded-Proto"]})


async def test_every_name_of_a_sandbox_is_served_with_tls(tls: TlsFiles) -> None:
    async with running_gateway(tls=tls) as rig:
        address = rig.routes.add("abc").address
        await rig.app(address, about, GUEST_PORT)
        await rig.app(address, about, PORT)
        url = f"https://127.0.0.1:{rig.gateway.tls_port}/x"
        for authorities in (tls.ca, tls.bundle):
            context = ssl.create_default_context(cafile=str(authorities))
            async with httpx.AsyncClient(verify=context, trust_env=False) as client:
                for port in (GUEST_PORT, PORT):
                    host = f"{port}-abc.{DOMAIN}"
                    answer = await client.get(url, headers={"Host": host}, extensions={"sni_hostname": host})
                    assert answer.json() == {"host": host, "proto": "https"}
                assert (await client.get(url, headers=to("abc"))).json()["proto"] == "https"
            async with httpx.AsyncClient(verify=context, trust_env=False) as client:
                with pytest.raises(httpx.ConnectError):
                    await client.get(url, extensions={"sni_hostname": "49983-abc.elsewhere.test"})


async def test_a_large_body_goes_both_ways_over_tls(tls: TlsFiles) -> None:
    async def mirror(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    content = bytes(range(256)) * 20_000
    async with running_gateway(tls=tls) as rig:
        await rig.app(rig.routes.add("abc").address, mirror, GUEST_PORT)
        context = ssl.create_default_context(cafile=str(tls.ca))
        async with httpx.AsyncClient(verify=context, trust_env=False) as client:
            url = f"https://127.0.0.1:{rig.gateway.tls_port}/"
            assert (await client.post(url, headers=to("abc"), content=content)).content == content


async def test_a_cut_reaches_clients_behind_tls(tls: TlsFiles) -> None:
    arrived = asyncio.Event()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        arrived.set()
        await reader.read()

    async with running_gateway(tls=tls) as rig:
        await rig.script(rig.routes.add("abc").address, never)
        context = ssl.create_default_context(cafile=str(tls.ca))
        url = f"https://127.0.0.1:{rig.gateway.tls_port}/"
        async with httpx.AsyncClient(verify=context, trust_env=False) as client:
            async with client.stream("GET", url, headers=to("abc")) as answer:
                await arrived.wait()
                rig.routes.kill("abc")
                with pytest.raises(httpx.TransportError):
                    await answer.aread()
