"""The whole way in a real browser: click, mask, propagate, correct, save, rows in the tables; twenty masklets by keyboard."""

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from serve.conftest import FRAMES, square

from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.serve.app import Site, make_app

webdriver = pytest.importorskip("selenium.webdriver")
CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver are installed"),
]
PATIENCE_S = 60


@contextmanager
def served(site: Site) -> Iterator[str]:
    """The address of a running server."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(make_app(site), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def chromium():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    # every name but our address leads nowhere: the page must do with what the server gives
    offline = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
                     "--disable-dev-shm-usage", "--window-size=1280,800", offline):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


class Page:
    """What a person does and sees."""

    def __init__(self, driver, address):
        self.driver = driver
        driver.get("about:blank")
        driver.get_log("browser")  # of the page before, whose server is gone
        driver.get(address)

    def ask(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def wait(self, script, *arguments):
        end = time.monotonic() + PATIENCE_S
        while not (found := self.ask(f"return {script}", *arguments)):
            assert time.monotonic() < end, f"{script}: {self.ask('return document.body.innerText')}"
            time.sleep(0.05)
        return found

    def key(self, key):
        self.driver.switch_to.active_element.send_keys(key)

    def press(self, action):
        self.wait(f"!document.querySelector('[data-action={action}]').disabled")
        self.driver.find_element("css selector", f"[data-action={action}]").click()

    def click(self, x, y, *, shift=False):
        """On a pixel of the video."""
        self.ask(
            """const canvas = document.querySelector(".picture"), box = canvas.getBoundingClientRect();
            const at = { clientX: box.left + arguments[0] / 128 * box.width, clientY: box.top + arguments[1] / 96 * box.height };
            for (const kind of ["pointerdown", "pointerup"])
                canvas.dispatchEvent(new PointerEvent(kind, { ...at, pointerId: 1, shiftKey: arguments[2], bubbles: true }));""",
            x, y, shift,
        )  # fmt: skip

    def badge(self, object_id):
        return self.ask(f"return document.querySelector('[data-object=\"{object_id}\"] .badge')?.textContent")

    def problems(self):
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture(autouse=True)
def _plain_pointers(chromium):
    """Pointers that a script makes up cannot be captured; a person's can."""
    script = "Element.prototype.setPointerCapture = () => {};"
    chromium.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})


def tinted(page, x, y):
    """Whether a pixel of the shown picture has been coloured by a mask, by comparison with the frame alone."""
    return page.ask(
        """const canvas = document.querySelector(".picture");
        const at = [arguments[0] / 128 * canvas.width, arguments[1] / 96 * canvas.height, 1, 1];
        return [...canvas.getContext("2d").getImageData(...at).data].slice(0, 3);""",
        x, y,
    )  # fmt: skip


def test_from_click_to_tables_in_the_browser(annotate, chromium, tmp_path):
    with served(annotate()) as address:
        page = Page(chromium, f"{address}#annotate")
        page.wait("document.querySelector('.stage')?.dataset.shown === '0'")
        (x, y), (u, v) = square(0, 0), square(1, 0)
        before = tinted(page, x + 4, y + 4)
        page.click(x + 10, y + 10)
        page.wait("document.querySelector('[data-object=\"1\"] .badge')?.textContent === 'not tracked'")
        end = time.monotonic() + PATIENCE_S
        while tinted(page, x + 4, y + 4) == before:
            assert time.monotonic() < end, "the mask is shown at once"
            time.sleep(0.05)
        page.click(u + 10, v + 10)  # the same object: two squares
        page.wait("performance.getEntriesByType('resource').filter((e) => e.name.endsWith('/prompt')).length === 2")
        page.press("propagate")
        page.wait("document.querySelector('[data-object=\"1\"] .badge')?.textContent === 'tracked'")
        page.press("save")
        page.wait("document.querySelector('.toast.good')")
        assert MaskletDataset(tmp_path / "annotated").masks("clip").num_rows == FRAMES

        for _ in range(6):
            page.key("\ue014")  # the right arrow
        page.wait("document.querySelector('.stage')?.dataset.shown === '6'")
        u, v = square(1, 6)
        page.click(u + 10, v + 10, shift=True)
        page.wait("document.querySelector('[data-object=\"1\"] .badge')?.textContent === 'changed'")

        chromium.refresh()
        page.wait("document.querySelector('[data-object=\"1\"] .badge')?.textContent === 'changed'"), "a reload loses no click"
        page.key("p")
        page.wait("document.querySelector('[data-object=\"1\"] .badge')?.textContent === 'tracked'")
        page.key("s")
        page.wait("document.querySelector('.toast.good')")
        assert page.problems() == []
    dataset = MaskletDataset(tmp_path / "annotated")
    areas = [row["area"] for row in dataset.masks("clip", 0).to_pylist()]
    assert min(areas[:6]) > 1.7 * max(areas[6:]), "from the correction on one square is left"
    assert dataset.prompts("clip")["labels"].to_pylist() == [[1, 1], [0]]


def test_twenty_masklets_by_keyboard(review, chromium, tables):
    with served(review()) as address:
        page = Page(chromium, f"{address}#review")
        page.wait("document.querySelectorAll('.masklets [data-key]').length === 20")
        order = page.ask("return [...document.querySelectorAll('.masklets [data-key]')].map((one) => one.dataset.key)")
        for n in range(20):
            page.wait("document.querySelector('.masklets [aria-selected]')?.dataset.key === arguments[0]", order[n])
            page.key("arf"[n % 3])
        page.wait("document.querySelector('.segments .none .count')?.textContent === '0'")
        page.key("u")
        page.wait("document.querySelector('.segments .none .count')?.textContent === '1'")
        page.key("a")
        page.wait("document.querySelector('.segments .none .count')?.textContent === '0'")
        said = {f"{r['masklet_id']} {r['video_id']}": r["verdict"] for r in MaskletDataset(tables).verdicts().to_pylist()}
        words = ("accept", "reject", "refine")
        assert said == {key: words[n % 3] for n, key in enumerate(order[:-1])} | {order[-1]: "accept"}
        # the pictures of the video whose file is gone are the only thing amiss
        assert [message for message in page.problems() if "/api/frame?video=gone" not in message] == []


def test_two_tabs_in_the_browser(annotate, chromium, tmp_path):
    """Each sees what the other did; objects of both are there in the end."""
    with served(annotate()) as address:
        first = Page(chromium, f"{address}#annotate")
        first.wait("document.querySelector('.stage')?.dataset.shown === '0'")
        tabs = [chromium.current_window_handle]
        chromium.switch_to.new_window("tab")
        tabs.append(chromium.current_window_handle)
        try:
            second = Page(chromium, f"{address}#annotate")
            second.wait("document.querySelector('.stage')?.dataset.shown === '0'")
            for n, tab in enumerate(tabs):
                chromium.switch_to.window(tab)
                x, y = square(n, 0)
                if n:
                    first.wait("document.querySelector('[data-object=\"1\"] .badge')?.textContent === 'not tracked'")
                    first.key("n")
                    first.wait("document.querySelectorAll('[data-object]').length === 2")
                first.click(x + 10, y + 10)
                first.wait(f"document.querySelector('[data-object=\"{n + 1}\"] .badge')?.textContent === 'not tracked'")
            for tab in tabs:
                chromium.switch_to.window(tab)
                first.wait("document.querySelectorAll('[data-object]').length === 2")
            assert first.problems() == []
        finally:
            chromium.switch_to.window(tabs[1])
            chromium.close()
            chromium.switch_to.window(tabs[0])
    with served(annotate()) as address:  # and after a restart
        page = Page(chromium, f"{address}#annotate")
        page.wait("document.querySelectorAll('[data-object]').length === 2")


@pytest.fixture
def phone(chromium):
    size = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    chromium.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    yield
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})


OFF_SCREEN = """[...document.querySelectorAll("button, select, input, canvas")].filter((one) => {
    const box = one.getBoundingClientRect();
    return box.width && (box.left < -1 || box.right > innerWidth + 1);
}).map((one) => one.outerHTML.slice(0, 80))"""


def test_on_a_phone(annotate, review, chromium, phone, tmp_path):
    """Nothing is beside the screen, and thumbs do what keys do."""
    with served(annotate()) as address:
        page = Page(chromium, f"{address}#annotate")
        page.wait("document.querySelector('.stage')?.dataset.shown === '0'")
        assert page.ask("return [innerWidth, document.documentElement.scrollWidth]") == [390, 390]
        assert page.ask(f"return {OFF_SCREEN}") == []
        x, y = square(0, 0)
        page.click(x + 10, y + 10)
        page.wait("document.querySelector('[data-object=\"1\"] .badge')?.textContent === 'not tracked'")
        page.press("propagate")
        page.wait("document.querySelector('[data-object=\"1\"] .badge')?.textContent === 'tracked'")
        page.press("save")
        page.wait("document.querySelector('.toast.good')")
        assert MaskletDataset(tmp_path / "annotated").masks("clip").num_rows == FRAMES
    with served(review()) as address:
        page = Page(chromium, f"{address}#review")
        page.wait("document.querySelector('.segments .none .count')?.textContent === '20'")
        assert page.ask("return document.documentElement.scrollWidth") == 390
        assert page.ask(f"return {OFF_SCREEN}") == []
        page.driver.find_element("css selector", ".verdict.accept").click()
        page.wait("document.querySelector('.segments .none .count')?.textContent === '19'")


def test_a_reload_loses_no_click_that_waits(annotate, model, chromium, tmp_path):
    """Neither the one that the server is at, nor those behind it; and none counts twice."""
    go, real = threading.Event(), model.preview
    model.preview = lambda *given: (go.wait(PATIENCE_S), real(*given))[1]
    with served(annotate()) as address:
        page = Page(chromium, f"{address}#annotate")
        page.wait("document.querySelector('.stage')?.dataset.shown === '0'")
        spots = [(n, square(n, 0)) for n in range(3)]
        for n, (x, y) in spots:
            page.click(x + 5 + n, y + 5)
        page.wait("sessionStorage.getItem('pending clip')?.includes('sent')")
        chromium.refresh()
        go.set()
        page.wait("document.querySelector('[data-object=\"1\"] .badge')?.textContent === 'not tracked'")
        page.wait("sessionStorage.getItem('pending clip') === '[]'")
        assert page.ask("return document.querySelectorAll('[data-object]').length") == 1
        page.press("propagate")
        page.wait("document.querySelector('[data-object=\"1\"] .badge')?.textContent === 'tracked'")
        page.press("save")
        page.wait("document.querySelector('.toast.good')")
    [points] = MaskletDataset(tmp_path / "annotated").prompts("clip")["points"].to_pylist()
    assert [[round(value) for value in point[:2]] for point in points] == [[x + 5 + n, y + 5] for n, (x, y) in spots]
