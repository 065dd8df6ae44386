"""What a sandbox reaches, and who reaches it. "The Internet" is a namespace of this machine (internet.py)."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from e2b import ALL_TRAFFIC, AsyncSandbox, Sandbox, SandboxException

from tests.e2e.internet import Internet
from tests.e2e.public_url import PublicUrl
from tests.e2e.waiting import until

pytestmark = pytest.mark.alone
"""The trapped addresses are the machine's, and one test at a time can have them."""

Create = Callable[..., Sandbox]

ECHO_HEADERS = """
import http.server, json
class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(("", 8000), Echo).serve_forever()
"""
OWN_ADDRESS = """python3 -c 'import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(("192.0.2.1", 9)); print(s.getsockname()[0])'"""


def reached(sandbox: Sandbox, *addresses: str, port: int = 80) -> set[str]:
    """Which of them answer a request from inside. `--noproxy` because a template may set a proxy."""
    asked = " ".join(addresses)
    command = f"""for address in {asked}; do
        (curl -s --noproxy '*' -m 2 http://$address:{port}/ > /dev/null && echo $address) &
    done; wait"""
    return set(sandbox.commands.run(command).stdout.split())


def reaches(sandbox: Sandbox, address: str, port: int = 80) -> bool:
    return reached(sandbox, address, port=port) == {address}


def visits_to(internet: Internet, address: str) -> list[str]:
    return [source for reached, source in internet.visits() if reached == address]


@contextmanager
def listening_everywhere() -> Iterator[tuple[int, list[str]]]:
    """A service of the host on all its addresses: its port, and who came."""
    visitors: list[str] = []
    with socket.create_server(("0.0.0.0", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    peer, (address, _) = listener.accept()
                except OSError:
                    return
                visitors.append(address)
                with peer:
                    peer.sendall(b"HTTP/1.0 200 OK\r\n\r\n")

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1], visitors
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


@pytest.mark.covers("N01")
def test_the_internet_is_reachable_by_default_under_the_hosts_address(box: Sandbox, internet: Internet) -> None:
    answer = box.commands.run(f"curl -s --noproxy '*' -m 10 http://{internet.servers[0]}/").stdout
    assert answer == f"{internet.servers[0]} saw {internet.near}"


@pytest.mark.covers("N01")
def test_closed_egress_leaves_inbound_open(create: Create, internet: Internet, public: PublicUrl) -> None:
    sandbox = create(allow_internet_access=False)
    before = len(internet.visits())
    assert not reaches(sandbox, internet.servers[0])
    assert len(internet.visits()) == before
    sandbox.commands.run("python3 -m http.server 8000", background=True, timeout=0)
    until(lambda: public.get(sandbox.get_host(8000)).status_code == 200, 20, "the server inside answers")


@pytest.mark.covers("N01", "N03")
@pytest.mark.threat("B5")
def test_egress_is_closed_and_opened_while_the_sandbox_runs(create: Create, internet: Internet) -> None:
    sandbox, server = create(), internet.servers[0]
    assert reaches(sandbox, server)
    sandbox.update_network({"allow_internet_access": False})
    assert not reaches(sandbox, server)
    assert sandbox.get_info().allow_internet_access is False
    sandbox.update_network({})
    assert reaches(sandbox, server)


@pytest.mark.covers("N02")
def test_addresses_are_denied_and_allowed_and_allow_wins(create: Create, internet: Internet) -> None:
    first, second = internet.servers
    for network, open_ones in (
        ({"deny_out": [first]}, {second}),
        ({"deny_out": [internet.block], "allow_out": [second]}, {second}),
        ({"deny_out": [ALL_TRAFFIC], "allow_out": [f"{first}/32"]}, {first}),
    ):
        assert reached(create(network=network), first, second) == open_ones


@pytest.mark.covers("N02", "C07")
def test_rules_that_nobody_would_enforce_are_refused(create: Create, box: Sandbox) -> None:
    for network, status in (
        ({"deny_out": ["example.org"]}, 400),
        ({"allow_out": ["not an address"]}, 400),
        ({"allow_out": ["example.org"]}, 400),
        ({"allow_out": ["example.org"], "deny_out": [ALL_TRAFFIC]}, 501),
        ({"rules": {"example.org": [{"transform": {"headers": {"a": "b"}}}]}}, 501),
    ):
        with pytest.raises(SandboxException) as failure:
            create(network=network)
        assert failure.value.status_code == status
        with pytest.raises(SandboxException) as failure:
            box.update_network(network)  # type: ignore[arg-type]
        assert failure.value.status_code == status


@pytest.mark.covers("N01")
@pytest.mark.threat("B3")
def test_private_and_metadata_addresses_are_closed_whatever_the_rules(
    box: Sandbox, create: Create, internet: Internet
) -> None:
    assert internet.traps, "this machine uses all of those addresses itself"
    for trap in internet.traps:
        with socket.create_connection((trap, 80), timeout=5) as probe:
            probe.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert probe.recv(1000).startswith(b"HTTP/1.1 200")
        assert visits_to(internet, trap), "the trap catches what the host itself sends"
    before = internet.visits()
    opened = create(network={"allow_out": ["0.0.0.0/0", *internet.traps, "10.0.0.0/8"]})
    for sandbox in (box, opened):
        assert reached(sandbox, *internet.traps) == set()
    assert internet.visits() == before


@pytest.mark.covers("N01")
@pytest.mark.threat("B1")
def test_services_of_the_host_are_closed(box: Sandbox, internet: Internet) -> None:
    gateway = box.commands.run("ip route show default | cut -d' ' -f3").stdout.strip()
    assert gateway
    with listening_everywhere() as (port, visitors):
        with socket.create_connection((internet.near, port), timeout=5):
            pass
        until(lambda: visitors, 5, "the listener works")
        del visitors[:]
        assert reached(box, gateway, internet.near, "127.0.0.1", port=port) == set()
        assert visitors == []


@pytest.mark.covers("N01")
@pytest.mark.threat("B2")
def test_sandboxes_do_not_reach_each_other(box: Sandbox, create: Create) -> None:
    other = create()
    other.commands.run("python3 -m http.server 8000", background=True, timeout=0)
    address = other.commands.run(OWN_ADDRESS).stdout.strip()
    until(lambda: reaches(other, address, 8000), 20, "the neighbour's server answers at home")
    assert not reaches(box, address, 8000)
    assert not reaches(box, address, 49983)


@pytest.mark.covers("N04")
def test_private_traffic_needs_the_token(create: Create, public: PublicUrl) -> None:
    sandbox = create(network={"allow_public_traffic": False})
    token = sandbox.traffic_access_token
    assert token
    sandbox.files.write("/tmp/echo.py", ECHO_HEADERS)
    sandbox.commands.run("python3 /tmp/echo.py", background=True, timeout=0)
    host = sandbox.get_host(8000)
    allowed = {"e2b-traffic-access-token": token}
    until(lambda: public.get(host, headers=allowed).status_code == 200, 20, "the server inside answers")
    assert "e2b-traffic-access-token" not in public.get(host, headers=allowed).json()
    for headers in ({}, {"e2b-traffic-access-token": "wrong"}, {"e2b-traffic-access-token": token[:-1]}):
        answer = public.get(host, headers=headers)
        assert answer.status_code == 403
        assert answer.json()["code"] == 403
    assert sandbox.commands.run("echo the guest has its own token").exit_code == 0


@pytest.mark.covers("N04")
def test_public_traffic_has_no_token(box: Sandbox) -> None:
    assert box.traffic_access_token is None


@pytest.mark.covers("N05")
def test_the_host_header_can_be_masked(create: Create, public: PublicUrl) -> None:
    sandbox = create(network={"mask_request_host": "${PORT}-shop.example.org"})
    sandbox.files.write("/tmp/echo.py", ECHO_HEADERS)
    sandbox.commands.run("python3 /tmp/echo.py", background=True, timeout=0)
    host = sandbox.get_host(8000)
    until(lambda: public.get(host).status_code == 200, 20, "the server inside answers")
    seen = public.get(host).json()
    assert (seen["host"], seen["x-forwarded-host"]) == ("8000-shop.example.org", host)
    assert sandbox.files.read("/etc/hostname")


@pytest.mark.anyio
@pytest.mark.covers("N01")
async def test_the_async_client_closes_egress_too(create: Create, internet: Internet) -> None:
    sandbox = await AsyncSandbox.connect(create().sandbox_id)
    await sandbox.update_network({"deny_out": [ALL_TRAFFIC]})
    result = await sandbox.commands.run(f"curl -s --noproxy '*' -m 3 http://{internet.servers[0]}/ || echo closed")
    assert result.stdout == "closed\n"
