"""The report as a browser shows it."""

import io

import numpy as np
import pytest
from PIL import Image

from cbsn.evaluation.report.html import write_report
from cbsn.evaluation.report.pictures import ReportPicture
from tests.browsers import start_browser

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

pytestmark = pytest.mark.slow

COLORS = {
    "noisy": (200, 40, 40),
    "first": (40, 160, 60),
    "second": (50, 60, 200),
    "clean": (90,) * 3,
}
NOISY, FIRST, SECOND, CLEAN = COLORS.values()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with start_browser(tmp_path_factory.mktemp("chromium")) as browser:
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        browser.execute_cdp_cmd("Network.enable", {})
        browser.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
        yield browser


@pytest.fixture
def open_report(browser, tmp_path, make_content):
    """Opens a report of a picture in plain colours, at a width in px."""

    def open_it(width=1200, picture=None, **changes):
        sides = {label: np.full((200, 300, 3), color, "uint8") for label, color in COLORS.items()}
        noisy, clean = sides.pop("noisy"), sides.pop("clean")
        plain = ReportPicture("plain", noisy, sides, clean, {"noisy": "20 dB"})
        log = tmp_path / "metrics.jsonl"
        log.write_text("".join(f'{{"step": {i}, "blind": {9 - i}}}\n' for i in range(1, 9)))
        content = {"curves": {"first": log}, **changes}
        write_report(tmp_path / "report.html", make_content(picture or plain, **content))
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        browser.get((tmp_path / "report.html").as_uri())
        return browser

    yield open_it
    assert [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"] == []


def _find(browser, selector):
    return browser.find_element(By.CSS_SELECTOR, selector)


def _shown(browser):
    """The colours seen at 1/8, 3/8, 5/8 and 7/8 of the width of the picture."""
    picture = Image.open(io.BytesIO(_find(browser, ".frame").screenshot_as_png)).convert("RGB")
    # Beneath the labels, and above the knob of the divider.
    return [picture.getpixel((picture.width * i // 8, picture.height // 3)) for i in (1, 3, 5, 7)]


def _choose(browser, number, label):
    Select(browser.find_elements(By.CSS_SELECTOR, ".choose")[number]).select_by_visible_text(label)


def test_it_shows_title_table_and_curves(open_report):
    browser = open_report()
    assert browser.title == _find(browser, "h1").text == "Two denoisers"
    rows = browser.find_elements(By.CSS_SELECTOR, "main section:first-child tbody tr")
    assert [row.text for row in rows] == ["first 32.04 0.2 –", "second 26.02 0.1 1,2"]
    assert _find(browser, ".chart").rect["width"] > 200
    loaded = "return [...document.images].every(i => i.complete && i.naturalWidth > 0)"
    assert browser.execute_script(loaded)


def test_the_divider_is_dragged(open_report):
    browser = open_report()
    assert _shown(browser) == [NOISY, NOISY, FIRST, FIRST]
    divider = _find(browser, ".divider")
    quarter = round(_find(browser, ".frame").rect["width"] / 4)

    def drag(*ways):
        mouse = ActionChains(browser, duration=50).click_and_hold(divider)
        for way in ways:
            mouse.move_by_offset(way, 10)
        mouse.release().move_by_offset(-50, 0).perform()
        return _shown(browser)

    assert drag(quarter) == [NOISY, NOISY, NOISY, FIRST]
    assert drag(quarter, -2 * quarter, -quarter) == [NOISY, FIRST, FIRST, FIRST]
    # It was let go before the last move.
    assert divider.get_attribute("aria-valuenow") == "25"


def test_a_click_moves_the_divider(open_report):
    browser = open_report()
    frame = _find(browser, ".frame")
    offset = round(frame.rect["width"] / 4)
    ActionChains(browser, duration=50).move_to_element_with_offset(
        frame, offset, 60
    ).click().perform()
    assert _find(browser, ".divider").get_attribute("aria-valuenow") == "75"
    assert _shown(browser) == [NOISY, NOISY, NOISY, FIRST]


def test_a_finger_drags_the_divider_alone(open_report):
    browser = open_report()
    divider = _find(browser, ".divider")
    quarter = _find(browser, ".frame").rect["width"] / 4

    def swipe(start, right, down):
        """Drags from `start` px away from the divider; returns where it is then."""
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", divider)
        box = browser.execute_script("return arguments[0].getBoundingClientRect()", divider)
        x, y = box["x"] + box["width"] / 2 + start, box["y"] + 40
        for kind, points in (
            ("touchStart", [{"x": x, "y": y}]),
            ("touchMove", [{"x": x + right, "y": y + down}]),
            ("touchEnd", []),
        ):
            event = {"type": kind, "touchPoints": points}
            browser.execute_cdp_cmd("Input.dispatchTouchEvent", event)
        return divider.get_attribute("aria-valuenow")

    assert swipe(10, -quarter - 10, 0) == "25"
    assert _shown(browser) == [NOISY, FIRST, FIRST, FIRST]
    assert swipe(-10, 2 * quarter + 10, 80) == "75"
    # The page may still scroll after this one.
    assert swipe(-100, 60, 80) == "75"


def test_keys_move_the_divider(open_report):
    browser = open_report()
    divider = _find(browser, ".divider")
    _find(browser, ".zoom").send_keys(Keys.TAB)
    assert browser.switch_to.active_element == divider
    for keys, value in (
        ([Keys.ARROW_RIGHT], "51"),
        ([Keys.ARROW_LEFT] * 3, "48"),
        ([Keys.PAGE_UP] * 3, "78"),
        ([Keys.PAGE_DOWN], "68"),
        ([Keys.END], "100"),
        ([Keys.ARROW_RIGHT], "100"),
    ):
        divider.send_keys(*keys)
        assert divider.get_attribute("aria-valuenow") == value
    assert _shown(browser) == [NOISY] * 4
    divider.send_keys(Keys.HOME)
    assert _shown(browser) == [FIRST] * 4


def test_sides_are_chosen(open_report):
    browser = open_report()
    _choose(browser, 0, "second")
    assert _shown(browser) == [SECOND, SECOND, FIRST, FIRST]
    _choose(browser, 1, "clean")
    assert _shown(browser) == [SECOND, SECOND, CLEAN, CLEAN]
    frame = _find(browser, ".frame")
    assert [frame.get_attribute(f"data-{end}") for end in ("left", "right")] == ["second", "clean"]
    _choose(browser, 0, "clean")
    assert _shown(browser) == [CLEAN] * 4
    _choose(browser, 0, "residual of first")
    assert _shown(browser)[0] not in COLORS.values() and _shown(browser)[2:] == [CLEAN, CLEAN]


def test_zoom_enlarges_by_whole_pixels(open_report, make_picture):
    browser = open_report(picture=make_picture((200, 300)))
    stage, frame = _find(browser, ".stage"), _find(browser, ".frame")
    for zoom, width in (("1×", 300), ("2×", 600), ("4×", 1200)):
        Select(_find(browser, ".zoom")).select_by_visible_text(zoom)
        assert stage.rect["width"] == width
        assert frame.rect["width"] <= 1160
    # The divider stays in sight.
    divider = _find(browser, ".divider").rect
    assert frame.rect["x"] < divider["x"] < frame.rect["x"] + frame.rect["width"]


@pytest.mark.parametrize("clean", [True, False])
def test_nothing_overflows_on_a_phone(open_report, make_picture, clean):
    name = "cbsn (/a/very/long/path/" + "x" * 90 + ") "
    picture = make_picture((200, 900), clean=clean)
    denoised = {name: picture.noisy, "second": picture.noisy}
    picture = ReportPicture(name * 2, picture.noisy, denoised, picture.clean, {name: name})
    browser = open_report(
        400,
        picture,
        title=name,
        facts=[name],
        table=[{"method": name, **{f"PSNR {i}": "30.123" for i in range(8)}}],
        notes={name: [name]},
    )
    assert browser.execute_script("return innerWidth") == 400
    assert browser.execute_script("return document.documentElement.scrollWidth") == 400
    Select(_find(browser, ".zoom")).select_by_visible_text("4×")
    assert browser.execute_script("return document.documentElement.scrollWidth") == 400
