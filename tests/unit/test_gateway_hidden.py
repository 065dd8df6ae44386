import pytest

from warren.gateway.hidden import HIDDEN, is_hidden


@pytest.mark.parametrize("name", sorted(HIDDEN))
@pytest.mark.parametrize(
    "form",
    [
        "/{}",
        "/{}/",
        "//{}",
        "/./{}",
        "/x/../{}",
        "/{};a=b",
        "/;x/../{}",
        "/{}?q=1",
        "/{}/more",
        "/%2e%2e/{}",
        "/x%2f..%2f{}",
        "\\{}",
        "/%5c{}",
        "/%20{}",
        "/{}%00",
        "/{}%3Fx",
        "/{}%23x",
    ],
)
def test_every_form_of_a_control_route_is_hidden(name: str, form: str) -> None:
    assert is_hidden(form.format(name))
    assert is_hidden(form.format(name.upper()))
    encoded = "".join(f"%{ord(letter):02x}" for letter in name)
    assert is_hidden(form.format(encoded))
    assert is_hidden(form.format(encoded.replace("%", "%25")))


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/health",
        "/files?path=/init",
        "/files?path=/warren",
        "/process.Process/Start",
        "/initial",
        "/x/init",
        "/metrics",
        "/envs",
        "/files/compose",
    ],
)
def test_the_other_routes_are_not(path: str) -> None:
    assert not is_hidden(path)


def test_a_path_that_never_stops_decoding_is_hidden() -> None:
    assert is_hidden("/%" + "25" * 20 + "61")
