"""The demo in a real browser: example, upload, click, thresholds, download, refusals; and nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from small_predictors import predictor

from bcnet.cli import main

# Found and not imported: gradio takes seconds.
MISSING = [name for name in ("gradio", "selenium") if importlib.util.find_spec(name) is None]
CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
if MISSING:
    reason = f"needs {' and '.join(MISSING)}: pip install 'bcnet[dev]'"
else:
    reason = "needs chromium and chromedriver: apt-get install chromium chromium-driver"
needs_browser = pytest.mark.skipif(bool(MISSING) or not (CHROMIUM and DRIVER), reason=reason)
SECONDS = 300  # until something appears; a busy machine is slow


class Server:
    """``bcnet demo`` in a process of its own."""

    def __init__(self, folder, images) -> None:
        predictor(MODEL__BILAYER__AMODAL=True).save_pretrained(folder / "model")
        self.log = folder / "log.txt"
        command = [sys.executable, "-m", "bcnet", "demo", "-v", "--max-size", "0.02"]
        command += ["--weights", str(folder / "model"), "--examples", str(images), "MODEL.DEVICE", "cpu"]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        self.url = ""

    def started(self) -> bool:
        """Whether it has said where it is."""
        text = self.log.read_text()
        assert self.process.poll() is None, text
        match = re.search(r"is at (http://\S+?)/? until Ctrl-C", text)
        self.url = match[1] if match else ""
        return bool(match)

    @property
    def predictions(self) -> int:
        return self.log.read_text().count("predicted ")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)  # as Docker does
        assert self.process.wait(SECONDS) == 0, self.log.read_text()
        assert "Traceback" not in self.log.read_text(), self.log.read_text()


@pytest.fixture
def server(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), dtype=np.uint8)
    (tmp_path / "examples").mkdir()
    for number, image in enumerate(noise):
        Image.fromarray(image).save(tmp_path / "examples" / f"scene {number}.png")
    running = Server(tmp_path, tmp_path / "examples")
    try:
        until(running.started, "the demo does not start")
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()


@pytest.fixture
def browser(server, tmp_path):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    downloads = str(tmp_path / "downloads")
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1400,1500"),
        # Only this computer has a name: whatever the page asks of another one fails.
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"--user-data-dir={tmp_path / 'profile'}",
    ):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": downloads})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    driver.downloads = downloads
    try:
        driver.set_page_load_timeout(SECONDS)
        driver.get(server.url)
        yield driver
    finally:
        driver.quit()


def until(condition, what: str):
    """The condition's value once it is true; elements may be redrawn meanwhile."""
    from selenium.common.exceptions import WebDriverException

    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            if value := condition():
                return value
        except WebDriverException:
            pass
        time.sleep(0.2)
    raise AssertionError(f"after {SECONDS} seconds: {what}")


class Page:
    """What a person does on the page and sees there."""

    def __init__(self, driver):
        self.driver = driver

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def one(self, selector):
        return until(lambda: self.all(selector), f"there is no {selector}")[0]

    @property
    def picture(self) -> str:
        """URL of the picture of the detections; empty without one."""
        images = self.all("#picture img")
        return (images[0].get_attribute("src") or "") if images else ""

    @property
    def summary(self) -> str:
        return self.one("#summary textarea").get_attribute("value")

    @property
    def message(self) -> str:
        return " ".join(toast.text for toast in self.all(".toast-body"))

    def move(self, slider: str, value: float) -> None:
        self.driver.execute_script(
            """const handle = arguments[0];
            handle.value = arguments[1];
            for (const name of ["input", "pointerup"])
                handle.dispatchEvent(new Event(name, {bubbles: true}));""",
            self.one(f"#{slider} input[type=range]"),
            str(value),
        )

    def upload(self, path) -> None:
        self.one("#upload input[type=file]").send_keys(str(path))

    def clear_upload(self) -> None:
        for button in self.all("#upload button[aria-label=Clear], #upload button[aria-label='Remove this file']")[:1]:
            self.driver.execute_script("arguments[0].click()", button)
        until(lambda: self.all("#upload input[type=file]"), "the upload is not cleared")


@needs_browser
def test_a_person_tries_the_model(browser, server, tmp_path):
    """One test: a browser is slow to start."""
    page = Page(browser)
    page.one("#examples button.thumbnail-item").click()
    until(lambda: page.picture, "no picture of the example")
    thresholds_are_live(page, server)
    a_click_gives_heat_maps(page)
    layers_and_graph(page)
    if folder := os.environ.get("BCNET_SCREENSHOTS"):
        browser.save_screenshot(os.path.join(folder, "demo.png"))
    results_as_a_file(page)
    what_is_no_image_or_too_large_is_refused(page, server, tmp_path)
    an_upload(page, server, tmp_path)
    nothing_comes_from_elsewhere(browser, server)
    server.stop()


def thresholds_are_live(page, server) -> None:
    """Another picture and other words, without another prediction."""
    assert server.predictions == 1
    page.move("score", 0.2)
    first = until(lambda: "instances in" in page.summary and (page.picture, page.summary), "no summary")
    page.move("score", 0.99)
    until(lambda: page.picture != first[0] and page.summary != first[1], "the score threshold changes nothing")
    page.move("score", 0.2)
    until(lambda: page.summary == first[1], "the first threshold does not bring the first result back")
    before = page.picture
    page.move("mask", 0.95)
    until(lambda: page.picture and page.picture != before, "the mask threshold changes nothing")
    before = page.picture
    page.move("mask", 0.4)
    until(lambda: page.picture and page.picture != before, "the second mask threshold changes nothing")
    assert server.predictions == 1


def a_click_gives_heat_maps(page) -> None:
    assert not page.all("#heat_maps img")
    page.one("#picture img").click()
    until(lambda: page.all("#heat_maps img"), "a click gives no heat maps")


def layers_and_graph(page) -> None:
    for name in ("Occluder layer", "Depth order", "Order graph"):
        tab = next(button for button in page.all("button[role=tab]") if button.text == name)
        page.driver.execute_script("arguments[0].click()", tab)
        until(lambda tab=tab: tab.get_attribute("aria-selected") == "true", f"the tab {name} does not open")
    until(lambda: page.all("#graph svg.order-graph"), "there is no graph")


def results_as_a_file(page) -> None:
    page.one("#download").click()
    path = os.path.join(page.driver.downloads, "scene 0.json")
    until(lambda: os.path.isfile(path), "nothing was downloaded")
    with open(path) as file:
        content = json.load(file)
    assert (content["width"], content["height"], content["image"]) == (60, 40, "scene 0.png")
    assert content["detections"] and all(entry["score"] >= 0.2 for entry in content["detections"])


def what_is_no_image_or_too_large_is_refused(page, server, folder) -> None:
    (folder / "notes.txt").write_text("no image")
    noise = np.random.default_rng(5).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "large.png")  # 30 kB
    for name, said in (("notes.txt", "notes.txt"), ("large.png", "size")):
        page.upload(folder / name)
        until(lambda said=said: said in page.message, f"{name} is not refused")
        for toast in page.all(".toast-close"):
            page.driver.execute_script("arguments[0].click()", toast)
        until(lambda: not page.message, "the message stays")
        page.clear_upload()
    assert server.predictions == 1


def an_upload(page, server, folder) -> None:
    pixels = np.random.default_rng(6).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    before = page.picture
    page.upload(folder / "photo.png")
    until(lambda: page.picture and page.picture != before, "no picture of the upload")
    assert server.predictions == 2


def nothing_comes_from_elsewhere(browser, server) -> None:
    asked = set()
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.add(message["params"]["request"]["url"])
    assert server.url.startswith("http://127.0.0.1:") and any(url.startswith(server.url) for url in asked)
    local = (server.url, "data:", "blob:", "chrome:")
    assert sorted(url for url in asked if not url.startswith(local)) == []


def test_the_command_without_weights(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bcnet.checkpoint.packaged.FOLDER", str(tmp_path))
    with pytest.raises(SystemExit):
        main(["demo"])
    assert "the model 'lite-detector' is not in this build of bcnet" in capsys.readouterr().err
    (tmp_path / "output" / "quick").mkdir(parents=True)
    (tmp_path / "output" / "quick" / "model_final.pth").write_text("no weights")  # of all.sh, comes first
    with pytest.raises(SystemExit):
        main(["demo"])
    assert "output/quick/model_final.pth" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["demo", "--max-size", "0"])
    assert "--max-size must be above 0, got 0" in capsys.readouterr().err


def test_without_gradio(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "bcnet.demo.page", raising=False)
    with pytest.raises(ImportError, match=r"needs the package gradio: pip install 'bcnet\[demo\]'"):
        import bcnet.demo.page  # noqa: F401


def test_no_proxy_for_this_computer_while_the_server_starts(monkeypatch):
    pytest.importorskip("gradio", reason="needs gradio: pip install 'bcnet[demo]'")
    from bcnet.demo.page import _without_proxy

    monkeypatch.setenv("no_proxy", "example.org")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with _without_proxy("10.0.0.5"):
        assert os.environ["no_proxy"] == "example.org,localhost,127.0.0.1,10.0.0.5"
        assert os.environ["NO_PROXY"] == "localhost,127.0.0.1,10.0.0.5"
    assert os.environ["no_proxy"] == "example.org" and "NO_PROXY" not in os.environ
