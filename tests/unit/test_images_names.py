"""Names of images, registries of the settings, and what registries say: read strictly."""

import json
from typing import Any

import pytest

from tests.oci_image import CONFIG, LAYER
from warren.images.manifest import BadImage, Compression, config_digest, config_of, layers_of, platform_digest
from warren.images.reference import parse_reference
from warren.images.registries import credentials, parse_registries
from warren.model import limits
from warren.model.build import RegistryLogin
from warren.model.errors import BadRequest

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine:3.20", "docker.io/library/alpine:3.20"),
        ("someone/tool", "docker.io/someone/tool:latest"),
        ("docker.io/library/alpine", "docker.io/library/alpine:latest"),
        ("localhost/x", "localhost/x:latest"),
        ("127.0.0.1:5000/a/b_c:1", "127.0.0.1:5000/a/b_c:1"),
        ("[::1]:5000/a", "[::1]:5000/a:latest"),
        ("host.example/a/b:v1@" + DIGEST, "host.example/a/b@" + DIGEST),
    ],
)
def test_names_are_read_as_docker_does(text: str, full: str) -> None:
    assert str(parse_reference(text)) == full


@pytest.mark.parametrize(
    "text",
    [
        "", "-v", "--authfile=/x", "docker://alpine", "oci:/etc", "dir:/tmp", "docker-archive:/etc/passwd",
        "/etc/passwd", "../x", "a//b", "UPPER", "a b", "a\nb", "host.example/", "host.example:99999999/x",
        "a:" + "t" * 129,
        "a@sha256:12", "a@md5:" + "0" * 32, "user:pw@host.example/x", "x" * 600, "host.example/-x", "-h.example/x",
        "a:-t",
    ],
)  # fmt: skip
def test_nothing_else_is_a_name(text: str) -> None:
    with pytest.raises(BadRequest, match="cannot read image"):
        parse_reference(text)


def test_settings_of_registries() -> None:
    found = parse_registries(
        ["docker.io=mirror.lan:5000/hub", "ghcr.io=127.0.0.1:5001"], ["127.0.0.1:5001", "plain.lan"], ["[::1]:5002"]
    )
    assert found.trusted == {
        ("mirror.lan", 5000), ("127.0.0.1", 5001), ("plain.lan", 443), ("plain.lan", 80), ("::1", 5002)
    }  # fmt: skip
    assert found.local == [("127.0.0.1", 5001), ("::1", 5002)]
    assert found.skopeo_configuration() == (
        'unqualified-search-registries = []\n[[registry]]\nlocation = "127.0.0.1:5001"\ninsecure = true\n'
        '[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "mirror.lan:5000/hub"\n'
        '[[registry]]\nlocation = "ghcr.io"\n[[registry.mirror]]\nlocation = "127.0.0.1:5001"\ninsecure = true\n'
        '[[registry]]\nlocation = "plain.lan"\ninsecure = true\n'
    )


@pytest.mark.parametrize("bad", [["x"], ["docker.io="], ["=x"], ['docker.io=x"y'], ["docker.io=x/a\nb"], ["a=b c"]])
def test_mirrors_that_cannot_be_read_are_refused(bad: list[str]) -> None:
    with pytest.raises(BadRequest):
        parse_registries(bad, [], [])


def test_a_login_is_for_its_registry_alone() -> None:
    name = parse_reference("host.example:5000/a")
    assert json.loads(credentials(name, RegistryLogin("me", "pä:ss"))) == {
        "auths": {"host.example:5000": {"auth": "bWU6cMOkOnNz"}}
    }
    assert json.loads(credentials(name, None)) == {"auths": {}}


def manifest(**changes: Any) -> bytes:
    plain = {"config": {"mediaType": CONFIG, "digest": DIGEST, "size": 1}, "layers": [layer()]}
    return json.dumps({**plain, **changes}).encode()


def layer(**changes: Any) -> dict[str, Any]:
    return {"mediaType": LAYER, "digest": DIGEST, "size": 10, **changes}


def test_a_manifest_is_read() -> None:
    assert [(each.digest, each.size, each.compression) for each in layers_of(manifest())] == [
        (DIGEST, 10, Compression.GZIP)
    ]
    assert config_digest(manifest()) == DIGEST


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"{}", b"nonsense", b'{"layers": 5}', b'{"layers": [5]}', b"[" * 100_000, b"\xff",
        manifest(layers=[layer(size=-1)]), manifest(layers=[layer(size="1")]), manifest(layers=[layer(digest="md5:1")]),
        manifest(layers=[layer(mediaType="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")]),
        manifest(layers=[layer()] * (limits.IMAGE_LAYERS + 1)),
        manifest(layers=[layer(size=limits.IMAGE_COMPRESSED_BYTES)] * 2),
        b" " * (limits.IMAGE_MANIFEST_BYTES + 1),
        json.dumps({"schemaVersion": 1, "fsLayers": []}).encode(),
    ],
    ids=range(16),
)  # fmt: skip
def test_other_manifests_are_refused(content: bytes) -> None:
    with pytest.raises(BadImage):
        layers_of(content)


def test_an_index_leads_to_this_machine_s_manifest() -> None:
    platforms = [{"os": "windows", "architecture": "amd64"}, {"os": "linux", "architecture": "amd64"}]
    index = {
        "manifests": [
            {"digest": f"sha256:{number}{'0' * 63}", "platform": each} for number, each in enumerate(platforms)
        ]
    }
    assert platform_digest(json.dumps(index).encode(), "amd64") == "sha256:1" + "0" * 63
    assert platform_digest(manifest(), "amd64") is None
    with pytest.raises(BadImage, match="not made for linux/arm64; there is windows/amd64, linux/amd64"):
        platform_digest(json.dumps(index).encode(), "arm64")


def config(**changes: Any) -> bytes:
    return json.dumps({"os": "linux", "architecture": "amd64", "config": changes}).encode()


def test_of_a_configuration_user_folder_and_environment_are_taken() -> None:
    found = config_of(config(User="app:staff", WorkingDir="/srv", Env=["A=1", "B=x=y"], Cmd=["sh"]), "amd64")
    assert (found.user, found.workdir, found.envs) == ("app", "/srv", {"A": "1", "B": "x=y"})
    bare = config_of(b'{"os": "linux", "architecture": "amd64", "config": null}', "amd64")
    assert (bare.user, bare.workdir, bare.envs) == ("", "", {})


@pytest.mark.parametrize(
    "content",
    [
        b"{}", config(User=5), config(User="a\nb"), config(WorkingDir=["/"]), config(Env="A=1"), config(Env=["A"]),
        config(Env=["=1"]), config(Env=["A=\0"]), config(Env=[f"A{number}=" for number in range(600)]),
        config(Env=["A=" + "x" * 200_000]), b'{"os": "linux", "architecture": "arm64"}',
    ],
    ids=range(11),
)  # fmt: skip
def test_other_configurations_are_refused(content: bytes) -> None:
    with pytest.raises(BadImage):
        config_of(content, "amd64")
