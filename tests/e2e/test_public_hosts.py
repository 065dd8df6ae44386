"""Public addresses of ports inside a sandbox."""

from collections.abc import Callable, Iterator

import pytest
from e2b import Sandbox

from tests.e2e.public_url import PublicUrl
from tests.e2e.waiting import until

BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0", "Accept": "text/html"}
PORT, LOOPBACK_PORT, CLOSED_PORT = 8000, 8001, 8999


@pytest.fixture(scope="module")
def web(box: Sandbox, public: PublicUrl) -> Iterator[Sandbox]:
    """The shared sandbox with a web server on every address, and one on its loopback only."""
    box.files.write("/tmp/site/index.html", "<h1>from inside</h1>")
    for port, address in ((PORT, "0.0.0.0"), (LOOPBACK_PORT, "127.0.0.1")):
        box.commands.run(f"python3 -m http.server {port} --bind {address} -d /tmp/site", background=True, timeout=0)
    for port in (PORT, LOOPBACK_PORT):
        until(lambda p=port: public.get(box.get_host(p)).status_code == 200, 20, f"port {port} answers")
    yield box


@pytest.mark.covers("S21")
def test_a_port_inside_has_a_public_address(web: Sandbox, public: PublicUrl) -> None:
    answer = public.get(web.get_host(PORT))
    assert (answer.status_code, answer.text) == (200, "<h1>from inside</h1>")
    assert public.get(web.get_host(PORT), "/missing").status_code == 404


@pytest.mark.covers("S21")
def test_a_server_on_the_loopback_inside_is_reachable_too(web: Sandbox, public: PublicUrl) -> None:
    assert public.get(web.get_host(LOOPBACK_PORT)).text == "<h1>from inside</h1>"


@pytest.mark.covers("S21")
def test_a_closed_port_says_so(web: Sandbox, public: PublicUrl) -> None:
    answer = public.get(web.get_host(CLOSED_PORT))
    assert answer.status_code == 502
    assert answer.json() == {
        "sandboxId": web.sandbox_id,
        "message": "The sandbox is running but port is not open",
        "port": CLOSED_PORT,
        "code": 502,
    }
    page = public.get(web.get_host(CLOSED_PORT), headers=BROWSER)
    assert page.status_code == 502
    assert page.headers["content-type"].startswith("text/html")
    assert str(CLOSED_PORT) in page.text


@pytest.mark.covers("S21")
def test_a_dead_sandbox_says_so(create: Callable[..., Sandbox], public: PublicUrl) -> None:
    sandbox = create()
    host = sandbox.get_host(PORT)
    sandbox.kill()
    answer = public.get(host)
    assert answer.status_code == 502
    assert answer.json() == {"sandboxId": sandbox.sandbox_id, "message": "The sandbox was not found", "code": 502}
    assert answer.headers["should-retry"] == "false"
    assert "Sandbox Not Found" in public.get(host, headers=BROWSER).text


@pytest.mark.covers("S21")
@pytest.mark.parametrize(
    "path", ["/init", "//init", "/%69nit", "/x/../init", "/freeze", "/warren/logs", "/warren/tunnel"]
)
def test_control_routes_of_the_guest_are_hidden(path: str, web: Sandbox, public: PublicUrl) -> None:
    for method in ("GET", "POST"):
        answer = public.request(method, web.get_host(49983), path)
        assert answer.status_code == 404
        assert answer.json()["code"] == 404


@pytest.mark.covers("S21")
def test_a_sandbox_that_never_was_is_not_found(web: Sandbox, public: PublicUrl) -> None:
    stranger = web.get_host(PORT).replace(web.sandbox_id, "i" + "0" * 20)
    assert public.get(stranger).json()["message"] == "The sandbox was not found"
