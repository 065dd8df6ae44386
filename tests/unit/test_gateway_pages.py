import json

import pytest

from warren.gateway import pages

FIREFOX = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept": "text/html",
}


@pytest.mark.parametrize(
    ("refusal", "body"),
    [
        (pages.not_found("abc"), {"sandboxId": "abc", "message": "The sandbox was not found", "code": 502}),
        (
            pages.port_closed("abc", 81),
            {
                "sandboxId": "abc",
                "message": "The sandbox is running but port is not open",
                "port": 81,
                "code": 502,
            },
        ),
        (
            pages.silent("abc"),
            {"sandboxId": "abc", "message": "The sandbox is running but its guest does not answer", "code": 502},
        ),
        (pages.hidden("/init"), {"message": "Not found", "path": "/init", "code": 404}),
        (pages.signature_unknown(), {"message": "invalid signature", "code": 401}),
    ],
)
def test_programs_get_the_contracts_json(refusal: pages.Refusal, body: dict[str, object]) -> None:
    response = pages.answer(refusal, {})
    assert json.loads(response.text or "") == body
    assert response.status == body["code"]


@pytest.mark.parametrize("refusal", [pages.not_found("a"), pages.port_closed("a", 1), pages.too_many("a")])
def test_clients_are_told_not_to_repeat_what_will_not_change(refusal: pages.Refusal) -> None:
    assert pages.answer(refusal, {}).headers["Should-Retry"] == "false"


def test_people_get_a_page() -> None:
    response = pages.answer(pages.port_closed("abc", 81), FIREFOX)
    assert response.content_type == "text/html"
    assert "no service running on port 81" in (response.text or "")
    assert "Sandbox Not Found" in (pages.answer(pages.not_found("abc"), FIREFOX).text or "")


@pytest.mark.parametrize(
    "more",
    [
        {"Accept": "application/json"},
        {"X-Requested-With": "XMLHttpRequest"},
        {"Sec-Fetch-Mode": "cors"},
        {"Sec-Fetch-Mode": "websocket"},
        {"User-Agent": "curl/8"},
    ],
)
def test_scripts_in_a_browser_get_json(more: dict[str, str]) -> None:
    assert pages.answer(pages.not_found("abc"), {**FIREFOX, **more}).content_type == "application/json"


def test_a_page_never_carries_markup_of_the_caller() -> None:
    refusal = pages.Refusal(502, "<script>1</script>", "<b>", sandbox_id="<i>")
    text = pages.answer(refusal, FIREFOX).text or ""
    assert "<script>" not in text
    assert "<i>" not in text
