"""Contract 6.2.5 and Warren's additions: what POST /init sets, and who may send it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import httpx
import pytest

from .conftest import CONTROL, TOKEN
from .wire import Wire, command

if TYPE_CHECKING:
    from .daemon import Daemon

YEAR_2036 = 2_082_758_400
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n"
MACHINE = "0123456789abcdef0123456789abcdef"


def envs(daemon: Daemon) -> dict[str, str]:
    return httpx.get(f"{daemon.url}/envs", headers={"X-Access-Token": daemon.token or ""}).json()


def test_init_is_204_with_the_version(fresh: Daemon) -> None:
    response = fresh.init(accessToken=TOKEN)
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["X-Envd-Version"] == "0.6.13"


def test_empty_body_is_fine(fresh: Daemon) -> None:
    assert fresh.init().status_code == 204
    assert httpx.post(f"{fresh.url}/init").status_code == 204


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"envVars": 5}', b'{"accessToken": {}}', b'{"timestamp": "x"}', b"\xff"]
)
def test_malformed_bodies_are_400(fresh: Daemon, body: bytes) -> None:
    response = httpx.post(f"{fresh.url}/init", content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (400, 400)


def test_unknown_fields_are_ignored(fresh: Daemon) -> None:
    assert fresh.init(fromTheFuture=1, volumeMounts=[], caBundle="", lifecycleID="x").status_code == 204


def test_variables_are_replaced_as_a_whole_and_null_keeps_them(fresh: Daemon) -> None:
    fresh.init(envVars={"A": "1", "B": "2"})
    fresh.init(envVars={"B": "3"})
    assert {name: value for name, value in envs(fresh).items() if not name.startswith("E2B_")} == {"B": "3"}
    fresh.init()
    fresh.init(envVars=None)
    assert envs(fresh)["B"] == "3"


def test_token_can_be_changed_and_absent_clears_it(fresh: Daemon) -> None:
    fresh.init(accessToken="one")
    assert httpx.get(f"{fresh.url}/envs").status_code == 401
    fresh.init(accessToken="two")
    assert httpx.get(f"{fresh.url}/envs", headers={"X-Access-Token": "one"}).status_code == 401
    assert httpx.get(f"{fresh.url}/envs", headers={"X-Access-Token": "two"}).status_code == 200
    fresh.init()
    assert httpx.get(f"{fresh.url}/envs").status_code == 200


def test_under_a_control_token_only_an_empty_token_clears_it(fresh: Daemon) -> None:
    """A short call of the platform must not open the door by leaving something out."""
    fresh.init(accessToken=TOKEN, controlToken=CONTROL)
    fresh.init(envVars={})
    assert httpx.get(f"{fresh.url}/envs").status_code == 401
    assert httpx.get(f"{fresh.url}/envs", headers={"X-Access-Token": TOKEN}).status_code == 200
    fresh.init(accessToken="")
    assert httpx.get(f"{fresh.url}/envs").status_code == 200


def test_older_timestamps_are_answered_but_not_applied(fresh: Daemon) -> None:
    fresh.init(timestamp="2030-01-02T00:00:00Z", envVars={"A": "new"})
    assert fresh.init(timestamp="2030-01-01T00:00:00Z", envVars={"A": "old"}).status_code == 204
    assert envs(fresh)["A"] == "new"
    fresh.init(timestamp="2030-01-03T00:00:00.123456789Z", envVars={"A": "newer"})
    assert envs(fresh)["A"] == "newer"


def test_timestamp_never_sets_the_clock(fresh: Daemon) -> None:
    """A container shares the clock of the host: the platform's word about it is not taken."""
    fresh.init(timestamp="2040-01-01T00:00:00Z")
    assert time.time() < YEAR_2036


def test_without_a_control_token_the_access_token_decides(fresh: Daemon) -> None:
    fresh.init(accessToken=TOKEN)
    assert httpx.post(f"{fresh.url}/init", json={"accessToken": "stolen"}).status_code == 401
    wrong = httpx.post(f"{fresh.url}/init", json={"accessToken": "stolen"}, headers={"X-Access-Token": "no"})
    assert (wrong.status_code, wrong.json()["code"]) == (401, 401)
    assert fresh.init(accessToken=TOKEN).status_code == 204


@pytest.mark.parametrize(
    "headers", [{}, {"X-Access-Token": TOKEN}, {"X-Warren-Control": "no"}, {"X-Warren-Control": ""}]
)
def test_with_a_control_token_only_it_decides(fresh: Daemon, headers: dict[str, str]) -> None:
    fresh.init(accessToken=TOKEN, controlToken=CONTROL)
    response = httpx.post(f"{fresh.url}/init", json={"accessToken": "stolen"}, headers=headers)
    assert (response.status_code, response.json()["code"]) == (401, 401)
    assert httpx.get(f"{fresh.url}/envs", headers={"X-Access-Token": TOKEN}).status_code == 200


def test_control_token_stays_when_absent_and_can_be_changed(fresh: Daemon) -> None:
    fresh.init(controlToken=CONTROL)
    fresh.init(controlToken=None)
    assert httpx.post(f"{fresh.url}/init", json={}).status_code == 401
    fresh.init(controlToken="next")
    assert httpx.post(f"{fresh.url}/init", json={}, headers={"X-Warren-Control": CONTROL}).status_code == 401
    assert httpx.post(f"{fresh.url}/init", json={}, headers={"X-Warren-Control": "next"}).status_code == 204


def test_identity_files_are_written(fresh: Daemon) -> None:
    fresh.init(hostname="box-1", machineID=MACHINE, dnsServers=["192.0.2.53", "2001:db8::53"])
    assert (fresh.etc / "hostname").read_text() == "box-1\n"
    assert (fresh.etc / "machine-id").read_text() == f"{MACHINE}\n"
    lines = (fresh.etc / "resolv.conf").read_text().splitlines()
    assert [line for line in lines if line.startswith("nameserver")] == [
        "nameserver 192.0.2.53",
        "nameserver 2001:db8::53",
    ]
    hosts = [line.split() for line in (fresh.etc / "hosts").read_text().splitlines()]
    assert ["127.0.1.1", "box-1"] in hosts
    assert any(line[:2] == ["127.0.0.1", "localhost"] for line in hosts if line)
    assert any(line[:2] == ["::1", "localhost"] for line in hosts if line)
    for name in ("hostname", "hosts", "resolv.conf"):
        assert (fresh.etc / name).stat().st_mode & 0o777 == 0o644


def test_absent_identity_keeps_the_files(fresh: Daemon) -> None:
    fresh.init(hostname="box-1", machineID=MACHINE, dnsServers=["192.0.2.53"])
    before = {path.name: path.read_text() for path in fresh.etc.iterdir()}
    fresh.init(envVars={})
    assert {path.name: path.read_text() for path in fresh.etc.iterdir()} == before


def test_identity_files_replace_links_and_never_follow_them(fresh: Daemon) -> None:
    victim = fresh.folder / "victim"
    victim.write_text("untouched")
    for name in ("hostname", "hosts", "machine-id", "resolv.conf"):
        (fresh.etc / name).symlink_to(victim)
    fresh.init(hostname="box-1", machineID=MACHINE, dnsServers=["192.0.2.53"])
    assert victim.read_text() == "untouched"
    assert not any(path.is_symlink() for path in fresh.etc.iterdir())
    assert sorted(path.name for path in fresh.etc.iterdir()) == ["hostname", "hosts", "machine-id", "resolv.conf"]


@pytest.mark.parametrize(
    "setting",
    [
        {"hostname": "two\nlines"},
        {"hostname": "a b"},
        {"hostname": "x" * 300},
        {"machineID": "short"},
        {"machineID": "Z" * 32},
        {"dnsServers": ["not an address"]},
        {"dnsServers": ["192.0.2.1\nsearch evil"]},
        {"hyperloopIP": "1.2.3.4\n9.9.9.9 bank.example"},
    ],
    ids=str,
)
def test_identity_that_would_forge_a_line_is_400(fresh: Daemon, setting: dict[str, object]) -> None:
    response = fresh.init(**setting)
    assert (response.status_code, response.json()["code"]) == (400, 400)
    assert list(fresh.etc.iterdir()) == []


def test_hyperloop_address_lands_in_hosts(fresh: Daemon) -> None:
    fresh.init(hostname="box-1", hyperloopIP="192.0.2.1")
    hosts = [line.split() for line in (fresh.etc / "hosts").read_text().splitlines()]
    assert ["192.0.2.1", "events.e2b.local"] in hosts


def test_certificates_are_added_to_the_bundle_and_replaced_next_time(fresh: Daemon) -> None:
    bundle = fresh.etc / "ssl/certs/ca-certificates.crt"
    bundle.parent.mkdir(parents=True)
    bundle.write_text("of the image\n")
    fresh.init(caBundle=CERTIFICATE)
    fresh.init(caBundle=CERTIFICATE.replace("QUJD", "REVG"))
    text = bundle.read_text()
    assert text.startswith("of the image\n")
    assert ("QUJD" in text, "REVG" in text) == (False, True)
    fresh.init(caBundle="")
    assert bundle.read_text() == "of the image\n"


def test_certificates_that_are_none_are_refused(fresh: Daemon) -> None:
    assert fresh.init(caBundle="anything").status_code == 400
    assert fresh.init(caBundle=CERTIFICATE.replace("CERTIFICATE", "PRIVATE KEY")).status_code == 400


def test_volume_mounts_are_refused_unless_empty(fresh: Daemon) -> None:
    assert fresh.init(volumeMounts=[{"nfs_target": "192.0.2.1:/x", "path": "/mnt"}]).status_code == 400


def test_marker_files_are_written(fresh: Daemon) -> None:
    fresh.init(sandboxID="isandbox", templateID="ttemplate")
    found = {path.name: path.read_text().strip() for path in fresh.run_dir.iterdir()}
    assert found == {".E2B_SANDBOX": "true", ".E2B_SANDBOX_ID": "isandbox", ".E2B_TEMPLATE_ID": "ttemplate"}


def test_unknown_default_user_leaves_a_clear_error(fresh_wire: Wire) -> None:
    response = fresh_wire.daemon.init(defaultUser="ghost")
    assert response.status_code in (204, 400, 401)
    if response.status_code == 204:
        assert fresh_wire.files("GET", params={"path": "x"}).json()["message"] == "invalid username: 'ghost'"


def test_big_init_bodies_are_bounded(fresh: Daemon) -> None:
    fresh.reset_peak()
    response = httpx.post(f"{fresh.url}/init", content=b'{"envVars":{"A":"' + b"x" * (64 << 20) + b'"}}')
    assert response.status_code in (400, 413)
    assert fresh.growth() < 64 << 20


def test_many_variables_reach_commands(fresh_wire: Wire) -> None:
    fresh_wire.daemon.init(envVars={f"V{i}": "x" * 100 for i in range(500)})
    assert fresh_wire.run(command("/usr/bin/env", stdin=False)).stdout.count(b"\nV") >= 499
