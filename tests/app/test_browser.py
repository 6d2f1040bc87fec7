"""The page in a browser, as somebody uses it who has no terminal."""

import io
import json
import threading
import time
import zipfile
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image

from cbsn.app.work import Work
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.folder import denoise_files, plan_files
from cbsn.training import adaptation
from tests.app.conftest import EXACT, MODEL, PATIENCE, running
from tests.browsers import start_browser

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

pytestmark = pytest.mark.slow

WIDE = {"width": 1600, "height": 1000, "deviceScaleFactor": 1, "mobile": False}


class Page:
    """The page in a browser, whose requests are watched."""

    def __init__(self, browser, port):
        self.browser = browser
        self.origin = f"http://127.0.0.1:{port}"
        self.requests = []
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", WIDE)
        browser.get(f"{self.origin}/")
        browser.delete_all_cookies()
        self.run("sessionStorage.clear()")
        browser.get(f"{self.origin}/")

    def find(self, selector):
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def run(self, script):
        return self.browser.execute_script(script)

    def wait(self, condition):
        """Waits until a condition in JavaScript holds."""
        WebDriverWait(self.browser, PATIENCE, 0.1).until(lambda b: self.run(f"return {condition}"))

    def upload(self, *paths):
        self.find("#files").send_keys("\n".join(map(str, paths)))

    def move(self, slider, value):
        self.run(
            f"const it = document.getElementById('{slider}'); it.value = {value};"
            "it.dispatchEvent(new Event('input'))"
        )

    def choose(self, end, label):
        Select(self.find(f".choose[data-end='{end}']")).select_by_visible_text(label)

    def is_loaded(self):
        """Waits until all tiles that are in the page can be seen."""
        self.wait("[...document.querySelectorAll('.stage img')].every(i => i.complete)")
        self.run(
            "return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )

    def shot(self):
        """The stage as it is seen, [H, W, 3], without the divider and the labels."""
        self.is_loaded()
        hidden = ".divider, .frame::before, .frame::after { visibility: hidden; }"
        self.run(f"document.styleSheets[0].insertRule('{hidden}', 0)")
        image = Image.open(io.BytesIO(self.find("#scroll").screenshot_as_png)).convert("RGB")
        self.run("document.styleSheets[0].deleteRule(0)")
        return np.asarray(image).astype(int)

    def downloaded(self, selector):
        """What a link leads to, fetched as this browser would."""
        cookies = "; ".join(f"{c['name']}={c['value']}" for c in self.browser.get_cookies())
        request = Request(self.find(selector).get_attribute("href"), headers={"Cookie": cookies})
        with urlopen(request) as answer:
            return answer.read()

    def result(self):
        """The picture that the download link leads to, [H, W, 3]."""
        return np.asarray(Image.open(io.BytesIO(self.downloaded("#result")))).astype(int)

    def hosts(self):
        """Where the browser has sent requests since the last time."""
        for entry in self.browser.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
        urls = map(urlsplit, self.requests)
        # The others are pages of the browser itself, such as the one that it starts with.
        return {url.netloc for url in urls if url.scheme in ("http", "https", "ws", "wss")}


@pytest.fixture(scope="module")
def port():
    with running() as (port, _):
        yield port


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chromium")
    with start_browser(folder, logs=("browser", "performance")) as browser:
        yield browser


@pytest.fixture
def page(browser, port):
    page = Page(browser, port)
    yield page
    assert page.hosts() == {urlsplit(page.origin).netloc}
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    # The console names answers that refuse something, which are tested.
    assert [each["message"] for each in errors if "status of 4" not in each["message"]] == []
    page.run("return fetch('/api/pictures', {method: 'DELETE'}).then(() => 1)")


@pytest.fixture
def flat(random):
    """A picture in which the noise can be seen, [256, 256, 3] uint8."""
    pixels = np.full((256, 256, 3), 120.0) + random.normal(0, 12, (256, 256, 3))
    return pixels.clip(0, 255).astype("uint8")


LUMA = np.array([0.299, 0.587, 0.114])
DONE = "pictures.length && pictures.every(p => p.state === 'done')"


def test_a_picture_is_denoised_and_downloaded(page, save, tmp_path):
    path = save("photo.jpg")
    page.upload(path)
    page.wait(DONE)
    assert page.find("#name").text == "photo.jpg"
    assert "80 × 64 px" in page.find("#state").text
    page.move("strength", 0.6)
    options = type(EXACT)(**{**vars(EXACT), "strength": 0.6})
    outputs = plan_files([path], tmp_path / "out")
    denoise_files(Denoiser.load(MODEL, options), outputs, tmp_path / "out")
    assert page.downloaded("#result") == (tmp_path / "out" / "photo.png").read_bytes()


def test_the_divider_is_dragged_over_the_pixels_themselves(page, save, noisy):
    page.upload(save())
    page.wait(DONE)
    Select(page.find("#zoom")).select_by_visible_text("100 %")
    denoised = page.result()
    assert page.shot().shape == noisy.shape
    for split in (40, 60, 20):
        divider = page.find(".divider")
        now = round(float(divider.get_attribute("aria-valuenow")))
        way = (split - now) * 80 // 100
        ActionChains(page.browser, duration=50).click_and_hold(divider).move_by_offset(
            way, 5
        ).release().perform()
        at = page.run("return parseFloat(stage.style.getPropertyValue('--split'))")
        assert abs(at - split) < 3
        column = round(at * 80 / 100)
        shown = page.shot()
        # The column of the divider may be mixed.
        assert np.array_equal(shown[:, : column - 1], noisy[:, : column - 1])
        assert np.array_equal(shown[:, column + 1 :], denoised[:, column + 1 :])


@pytest.mark.parametrize(("luma", "color"), [(0.5, None), (0.2, 1.0), (0.8, 0.3), (0.0, 0.0)])
def test_strength_changes_the_pixels_at_once(page, save, noisy, luma, color, monkeypatch):
    page.upload(save())
    page.wait(DONE)

    def fail(*args, **options):
        raise AssertionError("it was denoised again")

    monkeypatch.setattr(Denoiser, "__call__", fail)
    Select(page.find("#zoom")).select_by_visible_text("100 %")
    page.choose("left", "denoised")
    before = page.shot()
    if color is not None:
        page.find("#color-same").click()
        page.move("color", color)
    page.move("strength", luma)
    shown = page.shot()
    assert not np.array_equal(shown, before)
    expected = page.result()
    if not page.find("#color-same").is_selected():
        page.find("#color-same").click()
    page.move("strength", 1)
    clean = page.result()
    inside = ...
    if color is not None:
        # The browser blends colours, then luma. Where a step leaves the range, it clips otherwise.
        colored = clean + ((noisy - clean) @ LUMA)[..., None]
        both = noisy + color * (colored - noisy)
        both = both + ((clean - both) @ LUMA)[..., None]
        inside = [((each >= 0) & (each <= 255)).all(axis=-1) for each in (colored, both)]
        inside = inside[0] & inside[1]
    # Each step may be wrong by 0.5 as its luma has fewer digits, by 1 for two roundings, and by
    # 0.25 as opacity has 8 bits; what is expected is rounded, too.
    assert np.abs(shown - expected)[inside].max() <= 2 * 1.75 + 0.5


def test_what_was_removed_is_amplified(page, save, noisy):
    page.upload(save())
    page.wait(DONE)
    denoised = page.result()
    Select(page.find("#zoom")).select_by_visible_text("100 %")
    page.choose("left", "removed")
    page.choose("right", "removed")
    assert page.find("#gain").is_displayed()
    for gain in (4, 16):
        Select(page.find("#gain")).select_by_value(str(gain))
        page.run("return refresh().then(() => 1)")
        expected = (128 + gain * (noisy.astype(int) - denoised)).clip(0, 255)
        assert np.array_equal(page.shot(), expected)
    assert "noise alone" in page.find("#legend").text


def test_a_large_picture_is_seen_whole_and_in_full(page, save, random):
    pixels = random.integers(0, 256, (1500, 1300, 3), dtype=np.uint8)
    page.upload(save("large.png", pixels))
    page.wait("pictures.length && pictures[0].levels === 3")
    page.wait(DONE)
    page.choose("right", "noisy")
    for zoom, factor in (("100 %", 1), ("50 %", 2), ("25 %", 4)):
        Select(page.find("#zoom")).select_by_visible_text(zoom)
        page.run("document.getElementById('scroll').scrollTo(37, 41)")
        page.wait("document.getElementById('scroll').scrollLeft >= 0")
        left, top = page.run(
            "const s = document.getElementById('scroll'); return [s.scrollLeft, s.scrollTop]"
        )
        time.sleep(0.3)  # the scrolling asks for further tiles
        shown = page.shot()
        half = pixels[: 1500 // factor * factor, : 1300 // factor * factor].astype(float)
        small = half.reshape(1500 // factor, factor, 1300 // factor, factor, 3).mean(axis=(1, 3))
        height, width = shown.shape[:2]
        expected = small[int(top) : int(top) + height, int(left) : int(left) + width]
        # Each halving rounds.
        assert np.abs(shown[: len(expected), : expected.shape[1]] - expected).max() <= 1.01
    Select(page.find("#zoom")).select_by_visible_text("fit")
    frame = page.find(".frame").rect
    assert abs(frame["width"] / frame["height"] - 1300 / 1500) < 0.02


def test_the_divider_stays_in_sight_when_the_picture_is_scrolled(page, save, random):
    pixels = random.integers(0, 256, (1500, 2600, 3), dtype=np.uint8)
    page.upload(save("large.png", pixels))
    page.wait("pictures.length && pictures[0].levels")
    Select(page.find("#zoom")).select_by_visible_text("200 %")
    for left, top in ((0, 0), (3000, 900), (400, 2000)):
        page.run(f"document.getElementById('scroll').scrollTo({left}, {top})")
        page.run("return new Promise(done => setTimeout(done, 200))")
        scroll, divider = page.find("#scroll").rect, page.find(".divider").rect
        assert scroll["x"] < divider["x"] + divider["width"] / 2 < scroll["x"] + scroll["width"]
        assert page.run("return stage.style.getPropertyValue('--middle')").endswith("px")


@pytest.fixture
def slow(monkeypatch):
    """Denoising goes on until it is cancelled."""

    def denoise(self, job, *rest):
        while True:
            job.report(0.25)
            time.sleep(0.01)

    monkeypatch.setattr(Work, "denoise", denoise)


def test_a_job_is_cancelled(page, save, slow):
    page.upload(save())
    page.wait("pictures.length && pictures[0].state === 'working' && pictures[0].share > 0")
    page.wait("!document.getElementById('cancel').hidden")
    assert "25 %" in page.find("#state").text
    page.find("#cancel").click()
    page.wait("pictures[0].state === 'new'")
    page.wait("!document.getElementById('denoise').hidden")
    assert page.find("#result").is_displayed() is False


def test_a_batch_of_three_with_one_broken(page, save, tmp_path):
    good = [save("one.png"), save("two.jpg")]
    broken = tmp_path / "broken.jpg"
    content = good[1].read_bytes()
    broken.write_bytes(content[: len(content) // 3])
    page.upload(*good, broken)
    page.wait("pictures.length === 3 && !uploads && pictures[0].state === 'done'")
    assert page.find("#denoise-all").text == "Denoise all 3"
    page.find("#denoise-all").click()
    page.wait("pictures.filter(p => p.final).length === 2 && pictures[2].state === 'failed'")
    page.wait("!document.getElementById('archive').hidden")
    assert "1 failed" in page.find("#summary").text
    assert "broken.jpg" in page.find("#list .failed .status").text
    with zipfile.ZipFile(io.BytesIO(page.downloaded("#archive"))) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert files.keys() == {"one.png", "two.png", "failed.txt"}
    outputs = plan_files(good, tmp_path / "out")
    denoise_files(Denoiser.load(MODEL, EXACT), outputs, tmp_path / "out")
    for name in ("one.png", "two.png"):
        assert files[name] == (tmp_path / "out" / name).read_bytes()
    # What is chosen afterwards is not in the archive yet.
    assert not page.find("#archive-note").is_displayed()
    page.move("strength", 0.5)
    assert page.find("#archive-note").is_displayed()


def test_the_model_is_adapted_for_seconds_or_until_it_is_cancelled(page, save, flat, monkeypatch):
    def adapt_with_success(*args, **options):  # which a few steps do not always have
        adapted = adapt_really(*args, **options)
        return adapted._replace(facts={**adapted.facts, "adapted": True})

    adapt_really = adaptation.adapt
    monkeypatch.setattr(adaptation, "adapt", adapt_with_success)
    page.upload(save("flat.png", flat))
    page.wait(DONE)
    page.find("#adapting summary").click()

    def adapt(minutes):
        page.run(f"document.getElementById('minutes').value = {minutes}")
        page.find("#adapt").click()

    adapt(100)
    page.wait("adaptation && adaptation.share > 0")
    page.find("#cancel-adapting").click()
    page.wait("adaptation.state === 'cancelled'")
    assert not page.find("#adapted-label").is_displayed()

    adapt(0.05)
    page.wait("adaptation.state === 'done' && pictures[0].result?.adapted === 1")
    page.wait("document.getElementById('adapted').checked")
    assert page.find("#adapt-lines").text
    page.find("#adapted").click()
    page.wait("pictures[0].result?.adapted === 0 && pictures[0].state === 'done'")


def test_the_noise_is_reported(page, save, flat):
    page.upload(save("flat.png", flat))
    page.wait(DONE)
    page.find("#noise summary").click()
    page.find("#report-noise").click()
    page.wait("!document.getElementById('noise-figure').hidden")
    page.wait("document.getElementById('noise-figure').naturalWidth > 500")
    assert "Noise of 1 picture" in page.find("#noise-lines").text


def test_uncertainty_is_shown_if_it_was_estimated(page, save):
    page.upload(save())
    page.wait(DONE)
    option = page.find(".choose[data-end='right'] option:nth-child(4)")
    assert not option.is_enabled()
    page.find("#uncertainty").click()
    page.wait("pictures[0].views.includes('uncertainty')")
    page.wait("!document.querySelector('.choose option:nth-child(4)').disabled")
    page.choose("right", "uncertainty")
    page.is_loaded()
    assert "standard deviation of the error" in page.find("#legend").text
    assert page.downloaded("#sigma")[:4] in (b"II*\0", b"MM\0*")


def test_what_is_no_picture_is_named_and_the_others_go_on(page, save, tmp_path):
    script = tmp_path / "<img src=x onerror=alert(1)>.png"
    script.write_text("#!/bin/sh\n")
    page.upload(script, save())
    page.wait("document.querySelector('#messages p')")
    page.wait(DONE)
    assert "<img src=x onerror=alert(1)>.png" in page.find("#messages p").text
    assert page.browser.find_elements(By.CSS_SELECTOR, "#messages img") == []
    page.find("#messages button").click()
    assert page.browser.find_elements(By.CSS_SELECTOR, "#messages p") == []


def test_names_are_text(page, save):
    page.upload(save("<b onclick=alert(1)>&amp;.png"))
    page.wait(DONE)
    assert page.find("#name").text == "<b onclick=alert(1)>&amp;.png"
    assert page.find("#list .name").text == "<b onclick=alert(1)>&amp;.png"


def test_a_reload_keeps_the_pictures_and_remove_all_deletes_them(page, save):
    page.upload(save())
    page.wait(DONE)
    page.browser.refresh()
    page.wait(DONE)
    page.wait("!document.getElementById('work').hidden")
    page.find("#remove-all").click()
    page.browser.switch_to.alert.accept()
    page.wait("!pictures.length")
    assert not page.find("#work").is_displayed()


def test_the_keyboard_is_enough(page, save):
    page.upload(save())
    page.wait(DONE)
    seen = set()
    for _ in range(30):
        ActionChains(page.browser).send_keys(Keys.TAB).perform()
        focused = page.browser.switch_to.active_element
        seen |= {focused.get_attribute("id") or focused.get_attribute("class")}
    assert {"files", "folder", "name", "remove", "zoom", "divider"} <= seen
    assert {"result", "quality", "strength", "format"} <= seen


def test_nothing_overflows_on_a_phone(page, save):
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {**WIDE, "width": 400})
    page.upload(save("x" * 150 + ".png"))
    page.wait(DONE)
    for zoom in ("fit", "400 %"):
        Select(page.find("#zoom")).select_by_visible_text(zoom)
        assert page.run("return document.documentElement.scrollWidth") == 400


def test_a_link_on_another_site_finds_the_pictures_again(page, save):
    page.upload(save())
    page.wait(DONE)
    # Another name is another site.
    page.browser.get(page.origin.replace("127.0.0.1", "localhost"))
    page.run(f"location.href = '{page.origin}/'")
    WebDriverWait(page.browser, PATIENCE).until(lambda b: b.current_url.startswith(page.origin))
    page.wait(DONE)
    page.requests = [each for each in page.requests if "//localhost" not in each]
    page.hosts()
    page.requests = [each for each in page.requests if "//localhost" not in each]


def test_settings_that_are_changed_back_keep_the_result(page, save, monkeypatch):
    page.upload(save())
    page.wait(DONE)

    def slowly(self, job, *rest):
        while True:  # until it is cancelled
            job.report()
            time.sleep(0.01)

    monkeypatch.setattr(Work, "_make_result", slowly)
    quality = Select(page.find("#quality"))
    quality.select_by_value("best")
    page.wait("pictures[0].share != null")
    assert page.find("#result").is_displayed() is False
    quality.select_by_value("default")
    page.wait("pictures[0].share == null && pictures[0].result.quality === 'default'")
    assert page.find("#state").text.endswith(", denoised")
    page.wait("!document.getElementById('result').hidden")


def test_what_is_not_there_yet_is_not_called_denoised(page, save, monkeypatch):
    called, go_on = Denoiser.__call__, threading.Event()

    def waiting(self, *args, **options):
        assert go_on.wait(PATIENCE)
        return called(self, *args, **options)

    monkeypatch.setattr(Denoiser, "__call__", waiting)
    page.upload(save())
    page.wait("pictures.length && pictures[0].views.length === 1")
    page.wait("document.querySelector('.frame').dataset.right === 'not denoised yet'")
    go_on.set()
    page.wait(DONE)
    page.wait("document.querySelector('.frame').dataset.right === 'denoised'")


def test_a_reload_keeps_the_settings(page, save):
    page.upload(save())
    page.wait(DONE)
    Select(page.find("#quality")).select_by_value("best")
    page.move("strength", 0.4)
    page.wait("pictures[0].result.quality === 'best'")
    page.browser.refresh()
    page.wait(DONE)
    assert page.find("#quality").get_attribute("value") == "best"
    assert page.find("#strength-value").text == "40 %"
    assert page.find("#state").text.endswith(", denoised")


def test_an_answer_that_fails_is_said_once_and_goes(page, save):
    page.upload(save())
    page.wait(DONE)
    page.browser.delete_all_cookies()
    for _ in range(3):
        page.run("return refresh().then(() => 1)")
    (message,) = page.browser.find_elements(By.CSS_SELECTOR, "#messages p")
    assert "reload" in message.text
