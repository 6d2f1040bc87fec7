"""A browser without a window, for tests of pages."""

import contextlib
import shutil

import pytest

FLAGS = (
    "headless=new",
    "no-sandbox",  # the tests may run as root
    "disable-gpu",
    "disable-quic",
    "disable-dev-shm-usage",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "hide-scrollbars",
)


@contextlib.contextmanager
def start_browser(folder, logs=("browser",)):
    """Yields Chromium, driven by selenium, with a profile in a folder; skips where there is none.

    `logs` are those to keep: "browser" for its console, "performance" for all requests.
    """
    pytest.importorskip("selenium", reason="selenium is not installed")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"user-data-dir={folder}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", dict.fromkeys(logs, "ALL"))
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield browser
    finally:
        browser.quit()
