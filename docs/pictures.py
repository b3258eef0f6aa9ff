"""Makes the pictures of README and of the site: `python docs/pictures.py` (needs `.[dev]`, chromium and chromedriver).

What they show is synthetic, and so are the masklets: the true ones of the scenes, as tables of a run.
"""

import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import uvicorn
from PIL import Image
from selenium import webdriver

from sam2_pipeline.cli import main
from sam2_pipeline.config import JobConfig
from sam2_pipeline.render.layout import fit, sheet
from sam2_pipeline.render.overlay import overlay
from sam2_pipeline.serve.app import make_app
from sam2_pipeline.serve.serving import open_site
from sam2_pipeline.training.synthetic import SceneOptions, make_scene
from sam2_pipeline.training.synthetic.files import make_dataset

# A hundred kilobytes each: the repository keeps every version.
FOLDER = Path(__file__).parent / "pictures"
SEEDS = (23, 31)
SCENES = SceneOptions(size=(360, 640), frames=40, objects=(4, 4), late=0, parts=0)
SHOWN_FRAMES = (0, 13, 26, 39)
WINDOW = (1280, 760)


def draw_masklets(path: Path) -> None:
    """A row of frames for each scene, without masks first, every object in a colour of its own."""
    rows = []
    for seed in SEEDS:
        scene = make_scene(seed, SCENES)
        drawn = [overlay(scene.frame(t), scene.masks(t), range(1, scene.num_objects + 1), numbers=False) for t in SHOWN_FRAMES]
        rows.append([fit(frame, 300) for frame in (scene.frame(0), *drawn[1:])])
    _save(Image.fromarray(sheet(rows)), path)


def shoot_review(path: Path) -> None:
    """`sam2-pipeline serve` on tables of the scenes, as a browser shows it."""
    with tempfile.TemporaryDirectory() as folder:
        make_dataset(f"{folder}/scenes", SEEDS, SCENES)
        assert main(["import", f"{folder}/scenes/videos", f"{folder}/masklets", "--quiet"]) == 0
        with _served(f"{folder}/masklets") as address, _chromium() as browser:
            browser.get(f"{address}#review")
            _wait(browser, "document.querySelector('.player .number')?.textContent.startsWith('3 /')")
            for key in " o":  # stop, and show the other masklets of the video, too
                browser.switch_to.active_element.send_keys(key)
            time.sleep(2)
            _save(Image.open(BytesIO(browser.get_screenshot_as_png())).convert("RGB"), path)


@contextmanager
def _served(tables: str) -> Iterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        app = make_app(open_site(tables, None, JobConfig(), "ann"))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def _chromium() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--window-size={},{}".format(*WINDOW),
    ):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield browser
    finally:
        browser.quit()


def _wait(browser: webdriver.Chrome, condition: str) -> None:
    end = time.monotonic() + 60
    while not browser.execute_script(f"return {condition}"):
        assert time.monotonic() < end, condition
        time.sleep(0.05)


def _save(picture: Image.Image, path: Path) -> None:
    picture.save(path, quality=82, optimize=True)
    print(f"{path}: {picture.width}x{picture.height}, {path.stat().st_size / 1e3:.0f} kB, mean {np.asarray(picture).mean():.0f}")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    draw_masklets(FOLDER / "masklets.jpg")
    shoot_review(FOLDER / "review.jpg")
