"""Images from a real registry on loopback, in the ways that settings allow; and what may not be reached."""

import asyncio
import base64
import contextlib
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.image_registry import PASSWORD, USER, ImageRegistry, image_registry
from tests.oci_image import Image, archive, entry
from warren.contracts.building import FetchedImage
from warren.images.registries import parse_registries
from warren.images.source import OciImages
from warren.model.build import RegistryLogin
from warren.model.errors import BadRequest, BuildFailed

pytestmark = [pytest.mark.root, pytest.mark.anyio, pytest.mark.timeout(120)]

Open = Callable[..., OciImages]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageRegistry]:
    if os.geteuid() != 0:
        pytest.skip("cells need root")
    with image_registry(tmp_path_factory.mktemp("registry")) as up:
        yield up


@pytest.fixture
def source(tmp_path: Path) -> Open:
    """An image source with these settings."""

    def make(
        mirrors: tuple[str, ...] = (), insecure: tuple[str, ...] = (), private: tuple[str, ...] = (), proxy: str = ""
    ) -> OciImages:
        adopted: set[str] = set()
        images = OciImages(
            tmp_path / "images",
            parse_registries(mirrors, insecure, private, proxy=proxy),
            adopt=lambda _, digest: adopted.add(digest),
            use=adopted.__contains__,
        )
        images.open()
        return images

    return make


async def fetch(images: OciImages, name: str, login: RegistryLogin | None = None) -> tuple[FetchedImage, list[str]]:
    said: list[str] = []
    return await images.fetch(name, login, lambda _, text, __: said.append(text)), said


def image(content: bytes) -> Image:
    return Image([archive(entry("content", content))], {"User": "app"})


async def test_an_image_is_fetched_once_and_again_when_its_tag_moves(registry: ImageRegistry, source: Open) -> None:
    images = source(insecure=(registry.host,))
    name = registry.push("some/app:1", image(b"one"))
    first, said = await fetch(images, name)
    assert first.user == "app"
    assert any(text.startswith("fetching 1 layers") for text in said)
    again, said = await fetch(images, name)
    assert again == first
    assert "the image is here already" in said
    registry.push("other:1", image(b"two"))
    subprocess.run(
        ["skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false",
         f"docker://{registry.host}/other:1", f"docker://{name}"],
        check=True, capture_output=True,
    )  # fmt: skip
    moved, _ = await fetch(images, name)
    assert moved.digest != first.digest


async def test_by_digest_and_from_docker_s_own_manifests(registry: ImageRegistry, source: Open) -> None:
    images = source(insecure=(registry.host,))
    name = registry.push("docker/form:1", image(b"old"), "--format=v2s2")
    first, _ = await fetch(images, name)
    asked = ["skopeo", "inspect", "--tls-verify=false", "--format={{.Digest}}", f"docker://{name}"]
    digest = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    pinned, said = await fetch(images, f"{name}@{digest}")
    assert pinned == first
    assert "the image is here already" in said


async def test_a_mirror_is_asked_instead(registry: ImageRegistry, source: Open) -> None:
    registry.push("hub/library/mirrored:1", image(b"mirrored"))
    images = source(mirrors=(f"docker.io={registry.host}/hub",), insecure=(registry.host,))
    found, _ = await fetch(images, "mirrored:1")
    assert found.user == "app"


async def test_localhost_is_a_name_like_any_other(registry: ImageRegistry, source: Open) -> None:
    registry.push("named:1", image(b"named"))
    host = registry.host.replace("127.0.0.1", "localhost")
    await fetch(source(insecure=(host,)), f"{host}/named:1")


async def test_a_login_is_needed_and_never_on_a_command_line(tmp_path: Path, source: Open) -> None:
    with image_registry(tmp_path / "closed", closed=True) as closed:
        name = closed.push("secret:1", image(b"secret"), f"--dest-creds={USER}:{PASSWORD}")
        images = source(insecure=(closed.host,))
        with pytest.raises(BuildFailed, match=r"cannot use image .*unauthorized"):
            await fetch(images, name)
        with pytest.raises(BuildFailed, match=r"cannot use image .*unauthorized") as caught:
            await fetch(images, name, RegistryLogin(USER, "wrong-password"))
        assert "wrong-password" not in str(caught.value)
        seen: set[bytes] = set()

        async def watch() -> None:
            while True:
                for process in Path("/proc").glob("[0-9]*/cmdline"):
                    try:
                        seen.add(process.read_bytes())
                    except OSError:
                        continue
                await asyncio.sleep(0.01)

        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch())
            assert (await fetch(images, name, RegistryLogin(USER, PASSWORD)))[0].user == "app"
            watching.cancel()
        assert any(b"skopeo" in line for line in seen)
        assert not any(PASSWORD.encode() in line for line in seen)
        left = [path for path in (tmp_path / "images").rglob("*") if path.is_file()]
        assert not any(PASSWORD.encode() in path.read_bytes() for path in left)


@pytest.mark.threat("B11")
async def test_a_registry_that_nobody_listed_is_not_dialled_at_private_addresses(
    registry: ImageRegistry, source: Open
) -> None:
    name = registry.push("hidden:1", image(b"hidden"))
    before = registry.log.stat().st_size
    for host in (registry.host, registry.host.replace("127.0.0.1", "localhost"), "169.254.169.254", "10.1.2.3:5000"):
        with pytest.raises(BuildFailed, match="cannot use image"):
            await fetch(source(), name.replace(registry.host, host))
    assert registry.log.stat().st_size == before


@pytest.mark.threat("B11")
async def test_a_listed_registry_cannot_send_anybody_elsewhere(source: Open) -> None:
    """A redirect, or a token server, at an address that is not listed."""
    with socket.create_server(("127.0.0.1", 0)) as secret, socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        reserved.close()
        victim = f"127.0.0.1:{secret.getsockname()[1]}"
        heads = (
            f"HTTP/1.1 307 Moved\r\nLocation: http://{victim}/v2/\r\n",
            f'HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer realm="http://{victim}/token",service="x"\r\n',
        )
        for head in heads:

            async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str = head) -> None:
                await reader.read(1000)
                writer.write(f"{head}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
                await writer.drain()
                writer.close()

            async with await asyncio.start_server(answer, "127.0.0.1", port):
                with pytest.raises(BuildFailed):
                    await fetch(source(insecure=(f"127.0.0.1:{port}",)), f"127.0.0.1:{port}/evil:1")
        secret.setblocking(False)
        with pytest.raises(BlockingIOError):
            secret.accept()


async def test_a_name_that_is_none_is_the_caller_s_fault(source: Open) -> None:
    with pytest.raises(BadRequest):
        await fetch(source(), "--help")


async def test_what_is_not_there_is_said(registry: ImageRegistry, source: Open) -> None:
    with pytest.raises(BuildFailed, match=r"cannot use image .*/nothing:1: skopeo: .*manifest unknown"):
        await fetch(source(insecure=(registry.host,)), f"{registry.host}/nothing:1")


@contextlib.asynccontextmanager
async def upstream_proxy(known: str, target: str) -> AsyncIterator[tuple[str, list[str]]]:
    """An HTTP proxy that wants a password and alone knows the host `known`; its address, and what it was asked."""
    asked: list[str] = []
    wanted = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        asked.append(head.partition("\r\n")[0])
        if f"Proxy-Authorization: Basic {wanted}" not in head:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
        elif head.startswith(f"CONNECT {known}:80 "):
            host, _, port = target.partition(":")
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(_passed(reader, far_writer), _passed(far_reader, writer))
        else:
            writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


async def _passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def test_behind_a_proxy_what_is_at_no_private_address_goes_through_it(
    registry: ImageRegistry, source: Open
) -> None:
    near = registry.push("behind/proxy:1", image(b"far"))
    far = "registry.invalid"  # no name server knows it
    async with upstream_proxy(far, registry.host) as (address, asked):
        images = source(insecure=(far, registry.host), proxy=f"http://{USER}:{PASSWORD}@{address}")
        assert (await fetch(images, f"{far}/behind/proxy:1"))[0].user == "app"
        assert f"CONNECT {far}:80 HTTP/1.1" in asked
        asked.clear()
        await fetch(images, near)
        assert asked == [], "what is listed and near is dialled"
        with pytest.raises(BuildFailed, match=r"no public address"):
            await fetch(source(proxy=f"http://{USER}:{PASSWORD}@{address}"), "10.1.2.3:5000/some/app:1")
        assert asked == []
        with pytest.raises(BuildFailed, match=r"the proxy of the settings .* says '403'"):
            await fetch(images, "elsewhere.invalid/some/app:1")
        with pytest.raises(BuildFailed, match=r"the proxy of the settings .* says '407'") as caught:
            await fetch(source(insecure=(far,), proxy=f"http://{USER}:{'wrong'}@{address}"), f"{far}/behind/proxy:1")
        assert "wrong" not in str(caught.value)


@pytest.mark.parametrize("proxy", ["https://host:1", "http://host", "http://user:secret@", "host:8080", "http://h:1/x"])
def test_a_proxy_that_is_none_is_refused_without_its_password(proxy: str) -> None:
    with pytest.raises(BadRequest, match="registry proxy") as caught:
        parse_registries((), (), (), proxy=proxy)
    assert "secret" not in caught.value.message
