"""Several browsers at once, each with several pictures."""

import contextlib
import io
import threading
import zipfile

import pytest

from cbsn.app.work import Work
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.folder import denoise_files, plan_files
from tests.app.conftest import EXACT, MODEL, User, running
from tests.browsers import start_browser

pytestmark = pytest.mark.slow

BROWSERS, PICTURES = 4, 5


@pytest.fixture
def at_once(monkeypatch):
    """The most pictures that were denoised at the same time."""
    most = [0]
    now = []
    denoise = Work.denoise

    def counting(self, job, *rest):
        now.append(job)
        most[0] = max(most[0], len(now))
        try:
            denoise(self, job, *rest)
        finally:
            now.remove(job)

    monkeypatch.setattr(Work, "denoise", counting)
    return most


@pytest.fixture
def sources(save, noisy):
    """Pictures for each of the browsers, all of them different."""
    return [
        [save(f"{browser}-{number}.png", noisy[browser:, number:]) for number in range(PICTURES)]
        for browser in range(BROWSERS)
    ]


@pytest.fixture
def expected(sources, tmp_path):
    """What `cbsn denoise` makes of them."""
    paths = [path for each in sources for path in each]
    outputs = plan_files(paths, tmp_path / "expected")
    denoise_files(Denoiser.load(MODEL, EXACT), outputs, tmp_path / "expected")
    return {path.name: (tmp_path / "expected" / path.name).read_bytes() for path in paths}


def _files(archive):
    with zipfile.ZipFile(io.BytesIO(archive)) as found:
        return {name: found.read(name) for name in found.namelist()}


def test_twenty_pictures_from_four_browsers_at_once(sources, expected, tmp_path, at_once):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.wait import WebDriverWait

    with running() as (port, server), contextlib.ExitStack() as stack:
        browsers = []
        for number in range(BROWSERS):
            browser = stack.enter_context(start_browser(tmp_path / f"chromium-{number}"))
            browser.get(f"http://127.0.0.1:{port}/")
            browsers.append(browser)
        for browser, paths in zip(browsers, sources, strict=True):
            names = "\n".join(map(str, paths))
            browser.find_element(By.CSS_SELECTOR, "#files").send_keys(names)
        for browser in browsers:
            there = f"return pictures.length === {PICTURES} && !uploads"
            WebDriverWait(browser, 300).until(lambda b, it=there: b.execute_script(it))
            browser.find_element(By.CSS_SELECTOR, "#denoise-all").click()
        for browser, paths in zip(browsers, sources, strict=True):
            done = "return pictures.every(p => p.final && p.share == null)"
            WebDriverWait(browser, 300).until(lambda b, it=done: b.execute_script(it))
            names = browser.execute_script("return pictures.map(p => p.name)")
            assert names == [path.name for path in paths]
            user = User(port)
            user.cookies = {each["name"]: each["value"] for each in browser.get_cookies()}
            files = _files(user.ask("GET", "/api/results.zip")[2])
            assert files == {path.name: expected[path.name] for path in paths}
            user.ask("DELETE", "/api/pictures")
        assert at_once == [1]
        folder = server.page.disk.folder
        assert [path for path in folder.rglob("*") if path.is_file()] == []
        assert server.page.disk.used == 0
    assert not folder.exists()


def test_many_requests_at_once_are_all_answered(sources, expected, at_once):
    """Uploads, tiles, downloads and states of several users, from threads that do not wait."""
    failures = []

    def use(port, paths):
        try:
            user = User(port)
            for path in paths:
                id = user.upload(path)
                picture = user.denoise(id)
                assert picture["state"] == "done", picture
                for view in ("noisy", "denoised", "removed"):
                    assert user.ask("GET", f"/api/pictures/{id}/tiles/{view}/0/0/0.png")[0] == 200
                content = user.ask("GET", f"/api/pictures/{id}/result")[2]
                assert content == expected[path.name]
            assert len(user.state()["pictures"]) == len(paths)
        except Exception as error:
            failures.append(error)

    with running() as (port, server):
        threads = [threading.Thread(target=use, args=(port, paths)) for paths in sources]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        folder = server.page.disk.folder
    assert failures == [] and at_once == [1]
    assert not folder.exists()
