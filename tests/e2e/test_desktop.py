"""The `desktop` template through the unmodified `e2b-desktop` client: `make test-desktop`, as its image is large."""

import contextlib
import io
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from e2b_desktop import Sandbox  # pyright: ignore[reportMissingTypeStubs]
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, Playwright, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from tests.e2e.waiting import until

pytestmark = [pytest.mark.timeout(300)]
WIDTH, HEIGHT = 1280, 800
PAGE_COLOUR = (0, 192, 0)
LIFE_S = 900
PROGRAM_DEADLINE_S = 90.0
"""Seconds for a program of the desktop to show its window, on a busy two-core machine."""

PAGE_DEADLINE_MS = 20_000
Value = TypeVar("Value")


@pytest.fixture(scope="module")
def desktop(on_runtime: dict[str, Any]) -> Iterator[Sandbox]:
    box = Sandbox.create(resolution=(WIDTH, HEIGHT), dpi=110, timeout=LIFE_S, **on_runtime)
    yield box
    box.kill()


def picture(box: Sandbox) -> Image.Image:
    return Image.open(io.BytesIO(bytes(box.screenshot()))).convert("RGB")


def window_of(box: Sandbox, which: str) -> str:
    """The newest visible window that `xdotool search` finds, once there is one."""
    search = f"xdotool search --onlyvisible {which} || true"
    return soon(lambda: box.commands.run(search).stdout.split(), f"a window of {which}")[-1]


def soon(probe: Callable[[], Value], what: str) -> Value:
    return until(probe, PROGRAM_DEADLINE_S, what)


def middle_of(shot: Image.Image) -> Any:
    return shot.getpixel((shot.width // 2, shot.height // 2))


@pytest.mark.covers("D01", "D05")
def test_the_screen_has_the_asked_size(desktop: Sandbox) -> None:
    assert desktop.get_screen_size() == (WIDTH, HEIGHT)
    assert "110x110" in desktop.commands.run("xdpyinfo -display :0 | grep resolution").stdout


@pytest.mark.covers("D01")
def test_the_display_can_be_chosen(on_runtime: dict[str, Any]) -> None:
    box = Sandbox.create(display=":3", timeout=LIFE_S, **on_runtime)
    try:
        assert box.commands.run("echo $DISPLAY").stdout == ":3\n"
        assert box.get_screen_size() == (1024, 768)
    finally:
        box.kill()


@pytest.mark.covers("D02")
def test_a_screenshot_shows_the_desktop(desktop: Sandbox) -> None:
    shot = picture(desktop)
    assert shot.size == (WIDTH, HEIGHT)
    assert len(shot.getcolors(WIDTH * HEIGHT) or []) > 20  # a panel, icons and text; not one colour
    streamed = b"".join(desktop.screenshot(format="stream"))
    assert Image.open(io.BytesIO(streamed)).size == (WIDTH, HEIGHT)


@pytest.mark.covers("D03")
def test_the_pointer_goes_where_it_is_sent(desktop: Sandbox) -> None:
    desktop.move_mouse(400, 300)
    assert desktop.get_cursor_position() == (400, 300)
    desktop.drag((420, 320), (500, 420))
    assert desktop.get_cursor_position() == (500, 420)


@pytest.mark.covers("D03")
def test_each_button_and_the_wheel_reach_the_program_below(desktop: Sandbox) -> None:
    watcher = desktop.commands.run("xev -geometry 400x300+200+200 -event button > /tmp/buttons", background=True)
    window = window_of(desktop, "--name '^Event Tester$'")
    desktop.commands.run(f"xdotool windowactivate --sync {window}")
    place = desktop.commands.run(f"xdotool getwindowgeometry --shell {window}").stdout
    x, y = (int(re.search(rf"{axis}=(\d+)", place).group(1)) + 60 for axis in "XY")  # pyright: ignore[reportOptionalMemberAccess]
    desktop.left_click(x, y)
    desktop.middle_click(x, y)
    desktop.right_click(x, y)
    desktop.double_click(x, y)
    desktop.scroll("up", 2)
    desktop.scroll("down", 3)
    desktop.mouse_press("left")
    desktop.mouse_release("left")

    def pressed() -> list[str] | None:
        log = desktop.commands.run("grep -A3 ^ButtonPress /tmp/buttons | grep -o 'button [0-9]'").stdout
        seen = re.findall(r"button (\d)", log)
        return seen if len(seen) >= 11 else None

    assert soon(pressed, "eleven presses") == ["1", "2", "3", "1", "1", "4", "4", "5", "5", "5", "1"]
    watcher.kill()


@pytest.mark.covers("D04", "D06", "D07")
def test_a_program_is_launched_and_typed_into(desktop: Sandbox) -> None:
    desktop.launch("xfce4-terminal")
    window = window_of(desktop, "--class xfce4-terminal")
    assert window in desktop.get_application_windows("xfce4-terminal")
    desktop.commands.run(f"xdotool windowactivate --sync {window}")
    assert desktop.get_current_window_id() == window
    assert "Terminal" in desktop.get_window_title(window)
    desktop.write("echo $((6*7)) 'über' > /tmp/answer")
    desktop.press("enter")
    desktop.wait(200)
    soon(lambda: desktop.files.exists("/tmp/answer"), "the answer")
    assert desktop.files.read("/tmp/answer") == "42 über\n"
    desktop.press(["ctrl", "d"])


@pytest.mark.covers("D06", "D07")
def test_a_page_is_opened_in_the_browser(desktop: Sandbox) -> None:
    desktop.files.write("/tmp/page.html", f"<title>Warren</title><body style='background:rgb{PAGE_COLOUR}'></body>")  # pyright: ignore[reportUnknownMemberType]
    desktop.open("/tmp/page.html")
    window = window_of(desktop, "--class chromium")
    soon(lambda: desktop.get_window_title(window).startswith("Warren"), "the page's title")
    soon(lambda: middle_of(picture(desktop)) == PAGE_COLOUR, "the page's colour")


@pytest.mark.covers("D08")
def test_the_stream_is_seen_in_a_browser_and_asks_for_its_key(desktop: Sandbox) -> None:
    desktop.stream.start(require_auth=True)
    try:
        with pytest.raises(RuntimeError, match="already running"):
            desktop.stream.start()
        url = desktop.stream.get_url(auth_key=desktop.stream.get_auth_key())
        with sync_playwright() as playwright, _chromium(playwright) as browser:
            seen = browser.new_page(ignore_https_errors=True, viewport={"width": WIDTH, "height": HEIGHT})
            canvas = seen.locator("canvas").first
            soon(lambda: _shows(seen, url, canvas), "the screen in the page")
            soon(lambda: _colour(canvas) == middle_of(picture(desktop)), "the desktop's colour in the page")
            refused = browser.new_page(ignore_https_errors=True)
            refusal = refused.get_by_text(re.compile("fail|denied", re.IGNORECASE)).first
            wrong = desktop.stream.get_url(auth_key="wrong")
            soon(lambda: _shows(refused, wrong, refusal), "the word that the key is wrong")
    finally:
        desktop.stream.stop()
    assert desktop.commands.run("pgrep -x x11vnc || echo none").stdout == "none\n"


def _chromium(playwright: Playwright) -> Browser:
    arguments = ["--no-sandbox", "--no-proxy-server"]  # it runs as root, and looks at nothing but the test's own page
    return playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)


def _shows(page: Page, url: str, part: Locator) -> bool:
    """Loads it anew: Chromium drops what it is loading when an interface of this machine appears or goes."""
    with contextlib.suppress(PlaywrightError):
        page.goto(url)
        part.wait_for(timeout=PAGE_DEADLINE_MS)
    return part.is_visible()


def _colour(canvas: Locator) -> Any:
    return middle_of(Image.open(io.BytesIO(canvas.screenshot())).convert("RGB"))
